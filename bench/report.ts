import { cpus, totalmem } from 'node:os'
import { peerNames } from '../test/kit/peer-proxy.ts'
import { goalTable } from './goals.ts'
import { spread, table } from './markdown.ts'
import type { SidecarMemory } from './memory.ts'
import type { RevocationResult } from './revocation.ts'
import type { StreamSlices } from './streams.ts'
import { within, type Slice, type Slices } from './throughput.ts'

export interface Memory {
  readonly idleMb: number
  readonly loadedMb: number
}

export interface Results {
  readonly many: Slices
  readonly one: Slices
  readonly streams: StreamSlices
  /** The first has nothing that an earlier one compiled. */
  readonly readyMs: readonly number[]
  /** By candidate. */
  readonly memory: ReadonlyMap<string, Memory>
  readonly fresh: SidecarMemory
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
    '### Event streams, twenty events a second each',
    streamTable(results.streams),
    '### Start and memory of the sidecar and the others',
    processTable(results),
    '### From the call that revokes, with Redis',
    results.revocation ? revocationTable(results.revocation) : 'Not measured: no redis-server.',
    '### Goals',
    goalTable(results),
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

function streamTable(slices: StreamSlices): string {
  const rows = [...slices].map(([name, list]) => [
    name,
    spread(list.map(({ cpuUs }) => cpuUs)),
    spread(list.map(({ p50Us }) => p50Us)),
    spread(list.map(({ p99Us }) => p99Us)),
  ])
  return table(['', 'CPU us/event', 'p50 us', 'p99 us'], rows)
}

function processTable({ memory, readyMs, fresh }: Results): string {
  const { connections, connectedMb, loaded } = fresh
  const [firstMs = Number.NaN, ...laterMs] = readyMs
  const rows = [...memory].map(([name, { idleMb, loadedMb }]) => [
    `RSS of ${name}, idle -> after the load`,
    `${idleMb.toFixed(0)} -> ${loadedMb.toFixed(0)} MiB`,
  ])
  return table(
    ['', ''],
    [
      ['full: first start to ready, nothing compiled', `${firstMs.toFixed(0)} ms`],
      ['full: later starts to ready', `${spread(laterMs)} ms`],
      ...rows,
      [
        `RSS of a new full, idle -> ${connections} idle connections`,
        `${fresh.idleMb.toFixed(0)} -> ${connectedMb.toFixed(0)} MiB`,
      ],
      ...(loaded
        ? [[`RSS of a new full after ${loaded.seconds} s of load`, `${loaded.mb.toFixed(0)} MiB`]]
        : []),
    ],
  )
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

function range(slices: readonly Slice[], of: (slice: Slice) => number, digits = 0): string {
  return spread(slices.map(of), digits)
}
