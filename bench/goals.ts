import { peerNames } from '../test/kit/peer-proxy.ts'
import { median, percentile } from './load.ts'
import { table } from './markdown.ts'
import type { Results } from './report.ts'
import type { RevocationResult } from './revocation.ts'
import type { StreamSlice } from './streams.ts'
import { within, type Slice } from './throughput.ts'

interface Goal {
  readonly what: string
  readonly unit: string
  /** A bound: at most so much, or at least. */
  readonly goal: number
  readonly bound: 'most' | 'least'
  readonly measured: number
}

/** What was aimed at beside what was measured: medians over the rounds unless said. */
export function goalTable(results: Results): string {
  const goals = [...ofLoad(results), ...ofStreams(results), ...ofProcess(results)]
  if (results.revocation) goals.push(...ofRevocation(results.revocation))
  return table(['', 'goal', 'measured', ''], goals.map(rowOf))
}

function rowOf({ what, unit, goal, bound, measured }: Goal): readonly string[] {
  const isMet = bound === 'most' ? measured <= goal : measured >= goal
  const text = measured.toFixed(goal < 10 ? 2 : 0)
  const unitText = unit && ` ${unit}`
  return [
    what,
    `${bound === 'most' ? '<=' : '>='} ${goal}${unitText}`,
    `${text}${unitText}`,
    isMet ? 'met' : 'missed',
  ]
}

function ofLoad({ one, many }: Results): readonly Goal[] {
  const added = (by: (a: Slice, b: Slice) => number): number =>
    median(within(one, { over: 'full', under: 'bare', by }))
  const perCpu = (a: Slice, b: Slice): number => b.cpuUs / a.cpuUs
  const rate = (a: Slice, b: Slice): number => a.requestsPerSecond / b.requestsPerSecond
  return [
    {
      what: 'added p50 over bare, one connection',
      unit: 'us',
      ...most(
        60,
        added((a, b) => a.p50Us - b.p50Us),
      ),
    },
    {
      what: 'added p99 over bare, one connection',
      unit: 'us',
      ...most(
        200,
        added((a, b) => a.p99Us - b.p99Us),
      ),
    },
    {
      what: 'full / bare, req per CPU second',
      unit: '',
      ...least(0.8, median(within(many, { over: 'full', under: 'bare', by: perCpu }))),
    },
    {
      what: 'bare / the best of the four, req per CPU second',
      unit: '',
      ...least(2, Math.min(...toPeers(many, { over: 'bare', by: perCpu }))),
    },
    {
      what: 'full / the best of the four, req/s',
      unit: '',
      ...least(1.6, Math.min(...toPeers(many, { over: 'full', by: rate }))),
    },
  ]
}

function ofStreams({ streams }: Results): readonly Goal[] {
  const worst = (by: (a: StreamSlice, b: StreamSlice) => number): number =>
    Math.max(...toPeers(streams, { over: 'full', by }))
  return [
    {
      what: 'event streams: full / the best of the four, CPU per event',
      unit: '',
      ...most(
        1.1,
        worst((a, b) => a.cpuUs / b.cpuUs),
      ),
    },
    {
      what: 'event streams: full / the best of the four, p50 delay',
      unit: '',
      ...most(
        1,
        worst((a, b) => a.p50Us / b.p50Us),
      ),
    },
  ]
}

function ofProcess({ readyMs, fresh }: Results): readonly Goal[] {
  const [, ...laterMs] = readyMs
  const { idleMb, connections, connectedMb, loaded } = fresh
  return [
    { what: 'start to ready, but for the first', unit: 'ms', ...most(400, median(laterMs)) },
    { what: 'RSS idle', unit: 'MiB', ...most(120, idleMb) },
    { what: `RSS with ${connections} idle connections`, unit: 'MiB', ...most(200, connectedMb) },
    ...(loaded
      ? [{ what: `RSS after ${loaded.seconds} s of load`, unit: 'MiB', ...most(190, loaded.mb) }]
      : []),
  ]
}

const cutGoalsMs: ReadonlyMap<number, number> = new Map([
  [10, 5],
  [1_000, 130],
])

function ofRevocation({ refusals, cuts }: RevocationResult): readonly Goal[] {
  const p99 = (values: readonly number[]): number =>
    percentile(Float64Array.from(values).toSorted(), 0.99)
  const ofCuts = cuts.flatMap(({ streams, lastClosed }) => {
    const goal = cutGoalsMs.get(streams)
    return goal === undefined
      ? []
      : [
          {
            what: `revoke to last of ${streams} streams closed, p99 of ${lastClosed.length}`,
            unit: 'ms',
            ...most(goal, p99(lastClosed)),
          },
        ]
  })
  const what = `revoke to first refusal, p99 of ${refusals.length}`
  return [{ what, unit: 'ms', ...most(5, p99(refusals)) }, ...ofCuts]
}

function toPeers<TSlice>(
  slices: ReadonlyMap<string, readonly TSlice[]>,
  pair: { readonly over: string; readonly by: (over: TSlice, under: TSlice) => number },
): readonly number[] {
  return peerNames.map((under) => median(within(slices, { ...pair, under })))
}

function most(goal: number, measured: number): Pick<Goal, 'goal' | 'bound' | 'measured'> {
  return { goal, bound: 'most', measured }
}

function least(goal: number, measured: number): Pick<Goal, 'goal' | 'bound' | 'measured'> {
  return { goal, bound: 'least', measured }
}
