import { cpuMs } from './child.ts'
import { load, percentile } from './load.ts'

/** A server under load. */
export interface Candidate {
  readonly name: string
  readonly port: number
  readonly pid: number
}

/** One candidate, one slice. */
export interface Slice {
  readonly requestsPerSecond: number
  readonly p50Us: number
  readonly p99Us: number
  /** Processor time of the candidate's process per request. */
  readonly cpuUs: number
  readonly failures: number
}

export interface Plan {
  readonly rounds: number
  readonly sliceMs: number
  readonly connections: number
  readonly request: Buffer
}

/** By candidate, one slice per round: the slices of one index ran next to each other. */
export type Slices = ReadonlyMap<string, readonly Slice[]>

/** All candidates stay up; slices go round A B C, A B C: what disturbs the machine disturbs all of them alike. */
export async function measure(candidates: readonly Candidate[], plan: Plan): Promise<Slices> {
  for (const candidate of candidates) await slice(candidate, plan)
  const slices = new Map<string, Slice[]>(candidates.map(({ name }) => [name, []]))
  for (let round = 0; round < plan.rounds; round++) {
    for (const candidate of candidates) {
      slices.get(candidate.name)?.push(await slice(candidate, plan))
    }
  }
  return slices
}

async function slice({ port, pid }: Candidate, plan: Plan): Promise<Slice> {
  const { request, connections, sliceMs } = plan
  const before = await cpuMs(pid)
  const result = await load({ port, request, connections, durationMs: sliceMs })
  const spentMs = (await cpuMs(pid)) - before
  return {
    requestsPerSecond: result.requests / result.seconds,
    p50Us: percentile(result.latenciesUs, 0.5),
    p99Us: percentile(result.latenciesUs, 0.99),
    cpuUs: (spentMs * 1000) / result.requests,
    failures: result.failures,
  }
}

/** One value for each round, of the slices of two candidates that ran next to each other. */
export function within<TSlice>(
  slices: ReadonlyMap<string, readonly TSlice[]>,
  pair: {
    readonly over: string
    readonly under: string
    readonly by: (over: TSlice, under: TSlice) => number
  },
): readonly number[] {
  const unders = slices.get(pair.under) ?? []
  return (slices.get(pair.over) ?? []).flatMap((over, round) => {
    const under = unders[round]
    return under ? [pair.by(over, under)] : []
  })
}
