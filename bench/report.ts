import { cpus, totalmem } from 'node:os'
import { peerNames } from '../test/kit/peer-proxy.ts'
import { median } from './load.ts'
import type { RevocationResult } from './revocation.ts'
import type { Slice, Slices } from './throughput.ts'

export interface Memory {
  readonly idleMb: number
  readonly loadedMb: number
}

export interface Results {
  readonly many: Slices
  readonly one: Slices
  readonly readyMs: readonly number[]
  readonly memory: ReadonlyMap<string, Memory>
  /** Undefined without a redis-server. */
  readonly revocation: RevocationResult | undefined
}

/** The whole report as Markdown, so that it can stand in docs/performance.md as it is. */
export function report(results: Results): string {
  return [
    machine(),
    '### 64 connections',
    throughputTable(results.many),
    '### Ratios of req/s within a round, 64 connections',
    ratioTable(results.many),
    '### One connection',
    latencyTable(results.one),
    '### Added latency within a round, one connection',
    addedTable(results.one),
    '### Start and memory of the sidecar and the others',
    processTable(results),
    '### From the call that revokes, with Redis',
    results.revocation ? revocationTable(results.revocation) : 'Not measured: no redis-server.',
  ].join('\n\n')
}

function machine(): string {
  const all = cpus()
  const model = all[0]?.model.trim() ?? 'unknown processor'
  const gib = Math.round(totalmem() / 1024 ** 3)
  return `${all.length} x ${model}, ${gib} GiB, ${process.platform} ${process.arch}, Node ${process.version}`
}

function throughputTable(slices: Slices): string {
  const rows = [...slices].map(([name, list]) => [
    name,
    range(list, ({ requestsPerSecond }) => requestsPerSecond),
    range(list, ({ cpuUs }) => cpuUs),
    range(list, ({ p50Us }) => p50Us / 1000, 1),
    range(list, ({ p99Us }) => p99Us / 1000, 1),
  ])
  return table(['', 'req/s', 'CPU us/request', 'p50 ms', 'p99 ms'], rows)
}

function latencyTable(slices: Slices): string {
  const rows = [...slices].map(([name, list]) => [
    name,
    range(list, ({ requestsPerSecond }) => requestsPerSecond),
    range(list, ({ p50Us }) => p50Us),
    range(list, ({ p99Us }) => p99Us),
  ])
  return table(['', 'req/s', 'p50 us', 'p99 us'], rows)
}

const compared: readonly (readonly [over: string, under: string])[] = [
  ['full', 'bare'],
  ...peerNames.map((name) => ['bare', name] as const),
  ...peerNames.map((name) => ['full', name] as const),
  ['bare', 'direct'],
]

function ratioTable(slices: Slices): string {
  const rows = compared.map(([over, under]) => {
    const values = within(slices, {
      over,
      under,
      by: (a, b) => a.requestsPerSecond / b.requestsPerSecond,
    })
    const costs = within(slices, { over, under, by: (a, b) => b.cpuUs / a.cpuUs })
    return [`${over} / ${under}`, spread(values, 2), spread(costs, 2)]
  })
  return table(['', 'req/s', 'req per CPU second'], rows)
}

function addedTable(slices: Slices): string {
  const pairs: readonly (readonly [over: string, under: string])[] = [
    ['full', 'bare'],
    ['bare', 'direct'],
    ['full', 'direct'],
    ...peerNames.map((name) => [name, 'direct'] as const),
  ]
  const rows = pairs.map(([over, under]) => [
    `${over} - ${under}`,
    spread(within(slices, { over, under, by: (a, b) => a.p50Us - b.p50Us })),
    spread(within(slices, { over, under, by: (a, b) => a.p99Us - b.p99Us })),
  ])
  return table(['', 'p50 us', 'p99 us'], rows)
}

function processTable({ memory, readyMs }: Results): string {
  const rows = [...memory].map(([name, { idleMb, loadedMb }]) => [
    `RSS of ${name}, idle -> after the load`,
    `${idleMb.toFixed(0)} -> ${loadedMb.toFixed(0)} MiB`,
  ])
  return table(['', ''], [['full: start to ready', `${spread(readyMs)} ms`], ...rows])
}

function revocationTable({ refusals, busy, cuts }: RevocationResult): string {
  const rows = cuts.flatMap(({ streams, lastClosed, lastByte }) => [
    [`last byte of ${streams} streams`, spread(lastByte, 1), String(lastByte.length)],
    [`last of ${streams} streams closed`, spread(lastClosed, 1), String(lastClosed.length)],
  ])
  return table(
    ['', 'ms', 'trials'],
    [
      ['first refusal', spread(refusals, 1), String(refusals.length)],
      [
        `first refusal, under ${busy.requestsPerSecond.toFixed(0)} req/s`,
        spread(busy.refusals, 1),
        String(busy.refusals.length),
      ],
      ...rows,
    ],
  )
}

function within(
  slices: Slices,
  pair: {
    readonly over: string
    readonly under: string
    readonly by: (over: Slice, under: Slice) => number
  },
): readonly number[] {
  const unders = slices.get(pair.under) ?? []
  return (slices.get(pair.over) ?? []).flatMap((over, round) => {
    const under = unders[round]
    return under ? [pair.by(over, under)] : []
  })
}

function range(slices: readonly Slice[], of: (slice: Slice) => number, digits = 0): string {
  return spread(slices.map(of), digits)
}

/** Median, least and most. */
function spread(values: readonly number[], digits = 0): string {
  const text = (value: number): string => value.toFixed(digits)
  return `${text(median(values))} (${text(Math.min(...values))}..${text(Math.max(...values))})`
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map(rowText).join('\n')
}

function rowText(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}
