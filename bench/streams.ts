import { randomInt } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { cpuMs } from './child.ts'
import { percentile } from './load.ts'
import type { Candidate } from './throughput.ts'

/** One candidate, one slice of event streams. */
export interface StreamSlice {
  readonly events: number
  /** From the upstream's write until the client has read it. */
  readonly p50Us: number
  readonly p99Us: number
  /** Processor time of the candidate's process per event. */
  readonly cpuUs: number
}

export interface StreamPlan {
  readonly streams: number
  readonly streamRounds: number
  readonly streamMs: number
  /** A GET of the upstream's `/timed`. */
  readonly request: Buffer
}

/** By candidate, one slice per round: the slices of one index ran next to each other. */
export type StreamSlices = ReadonlyMap<string, readonly StreamSlice[]>

/** Each stream has twenty events a second, at moments of its own. Rejects when a stream does not begin. */
export async function measureStreams(
  candidates: readonly Candidate[],
  plan: StreamPlan,
): Promise<StreamSlices> {
  const slices = new Map<string, StreamSlice[]>(candidates.map(({ name }) => [name, []]))
  for (let round = 0; round < plan.streamRounds; round++) {
    for (const candidate of candidates) {
      slices.get(candidate.name)?.push(await slice(candidate, plan))
    }
  }
  return slices
}

/** The events of a stream, twenty a second. */
const periodMs = 50

async function slice({ name, port, pid }: Candidate, plan: StreamPlan): Promise<StreamSlice> {
  const delaysUs: number[] = []
  const sockets = await Promise.all(
    Array.from({ length: plan.streams }, () =>
      open(port, { request: plan.request, heard: (us) => delaysUs.push(us) }),
    ),
  ).catch((cause: unknown) => {
    throw new Error(`A stream through ${name} did not begin`, { cause })
  })
  await setTimeout(plan.streamMs / 4)
  delaysUs.length = 0
  const before = await cpuMs(pid)
  await setTimeout(plan.streamMs)
  const spentMs = (await cpuMs(pid)) - before
  const sorted = Float64Array.from(delaysUs).toSorted()
  for (const socket of sockets) socket.destroy()
  return {
    events: sorted.length,
    p50Us: percentile(sorted, 0.5),
    p99Us: percentile(sorted, 0.99),
    cpuUs: (spentMs * 1000) / sorted.length,
  }
}

interface StreamOptions {
  readonly request: Buffer
  readonly heard: (delayUs: number) => void
}

/** Resolves with the first event. */
async function open(port: number, { request, heard }: StreamOptions): Promise<Socket> {
  await setTimeout(randomInt(periodMs))
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.on('connect', () => socket.write(request))
  socket.on('error', reject)
  socket.on('close', () => reject(new Error('It was closed')))
  socket.on('data', (chunk: Buffer) => {
    const now = process.hrtime.bigint()
    // An event is one small write: none is split between two chunks.
    for (const [, sentAt = ''] of chunk.toString('latin1').matchAll(/data: (\d+)\n/g)) {
      heard(Number(now - BigInt(sentAt)) / 1000)
      resolve(socket)
    }
  })
  return await promise
}
