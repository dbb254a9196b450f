import { peerNames } from '../test/kit/peer-proxy.ts'
import { median, percentile } from './load.ts'
import { table } from './markdown.ts'
import type { SidecarMemory } from './memory.ts'
import type { Results } from './report.ts'
import type { RevocationResult } from './revocation.ts'
import type { StreamSlice } from './streams.ts'
import { within, type Slice } from './throughput.ts'

type Goal = {
  readonly what: string
  /** Empty for a ratio. */
  readonly unit: 'us' | 'ms' | 'MiB' | ''
  readonly measured: number
} & ({ readonly atMost: number } | { readonly atLeast: number })

/** What was aimed at beside what was measured: medians over the rounds, unless the row says otherwise. */
export function goalTable(results: Results): string {
  const goals = [
    ...ofLoad(results),
    ...ofStreams(results),
    ...ofProcess(results),
    ...(results.revocation ? ofRevocation(results.revocation) : []),
  ]
  return table(['', 'goal', 'measured', ''], goals.map(rowOf))
}

function rowOf(goal: Goal): readonly string[] {
  const { what, unit, measured } = goal
  const [sign, bound, isMet] =
    'atMost' in goal
      ? ['<=', goal.atMost, measured <= goal.atMost]
      : ['>=', goal.atLeast, measured >= goal.atLeast]
  const figures = [`${sign} ${bound}`, measured.toFixed(bound < 10 ? 2 : 0)]
  return [what, ...figures.map((text) => `${text} ${unit}`.trim()), isMet ? 'met' : 'missed']
}

function ofLoad({ one, many }: Results): readonly Goal[] {
  const added = (by: (full: Slice, bare: Slice) => number): number =>
    median(within(one, { over: 'full', under: 'bare', by }))
  return [
    {
      what: 'added p50 over bare, one connection',
      unit: 'us',
      atMost: 60,
      measured: added((full, bare) => full.p50Us - bare.p50Us),
    },
    {
      what: 'added p99 over bare, one connection',
      unit: 'us',
      atMost: 200,
      measured: added((full, bare) => full.p99Us - bare.p99Us),
    },
    {
      what: 'full / bare, req per CPU second',
      unit: '',
      atLeast: 0.8,
      measured: median(within(many, { over: 'full', under: 'bare', by: perCpuSecond })),
    },
    {
      what: 'bare / the best of the four, req per CPU second',
      unit: '',
      atLeast: 2,
      measured: Math.min(...toPeers(many, { over: 'bare', by: perCpuSecond })),
    },
    {
      what: 'full / the best of the four, req/s',
      unit: '',
      atLeast: 1.6,
      measured: Math.min(...toPeers(many, { over: 'full', by: perSecond })),
    },
  ]
}

function perCpuSecond(over: Slice, under: Slice): number {
  return under.cpuUs / over.cpuUs
}

function perSecond(over: Slice, under: Slice): number {
  return over.requestsPerSecond / under.requestsPerSecond
}

function ofStreams({ streams }: Results): readonly Goal[] {
  const toBest = (by: (full: StreamSlice, peer: StreamSlice) => number): number =>
    Math.max(...toPeers(streams, { over: 'full', by }))
  return [
    {
      what: 'event streams: full / the best of the four, CPU per event',
      unit: '',
      atMost: 1.1,
      measured: toBest((full, peer) => full.cpuUs / peer.cpuUs),
    },
    {
      what: 'event streams: full / the best of the four, p50 delay',
      unit: '',
      atMost: 1,
      measured: toBest((full, peer) => full.p50Us / peer.p50Us),
    },
  ]
}

function ofProcess({ readyMs, fresh }: Results): readonly Goal[] {
  const [firstMs = Number.NaN, ...laterMs] = readyMs
  const { idleMb, connections, connectedMb, loaded } = fresh
  return [
    { what: 'first start to ready', unit: 'ms', atMost: 400, measured: firstMs },
    { what: 'later starts to ready', unit: 'ms', atMost: 400, measured: median(laterMs) },
    { what: 'RSS idle', unit: 'MiB', atMost: 120, measured: idleMb },
    {
      what: `RSS with ${connections} idle connections`,
      unit: 'MiB',
      atMost: 200,
      measured: connectedMb,
    },
    ...(loaded ? [afterLoad(loaded)] : []),
  ]
}

function afterLoad({ seconds, mb }: NonNullable<SidecarMemory['loaded']>): Goal {
  return { what: `RSS after ${seconds} s of load`, unit: 'MiB', atMost: 190, measured: mb }
}

/** Milliseconds, by the number of streams. */
const cutGoals: ReadonlyMap<number, number> = new Map([
  [10, 5],
  [1_000, 130],
])

function ofRevocation({ refusals, cuts }: RevocationResult): readonly Goal[] {
  const what = `revoke to first refusal, p99 of ${refusals.length}`
  const ofCuts = cuts.flatMap(({ streams, lastClosed }): readonly Goal[] => {
    const atMost = cutGoals.get(streams)
    if (atMost === undefined) return []
    const cut = `revoke to last of ${streams} streams closed, p99 of ${lastClosed.length}`
    return [{ what: cut, unit: 'ms', atMost, measured: p99(lastClosed) }]
  })
  return [{ what, unit: 'ms', atMost: 5, measured: p99(refusals) }, ...ofCuts]
}

function p99(values: readonly number[]): number {
  return percentile(Float64Array.from(values).toSorted(), 0.99)
}

/** One median for each of the four. */
function toPeers<TSlice>(
  slices: ReadonlyMap<string, readonly TSlice[]>,
  pair: { readonly over: string; readonly by: (over: TSlice, under: TSlice) => number },
): readonly number[] {
  return peerNames.map((under) => median(within(slices, { ...pair, under })))
}
