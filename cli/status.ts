import { setTimeout as delay } from 'node:timers/promises'
import type { Command } from 'commander'
import { systemClock } from '../proxy/system-clock.ts'
import { isUpToDate, readFleet, type Fleet, type JudgedSidecar } from '../revocation/fleet.ts'
import { createPresenceReader, type PresenceReader } from '../revocation/presence-reader.ts'
import { exitCodes } from './exit-codes.ts'
import { printable } from './printable.ts'
import {
  addStoreOptions,
  askStore,
  readStoreOptions,
  type Store,
  type StoreOptions,
} from './store-options.ts'
import { untilSignal } from './until-signal.ts'

interface StatusOptions extends StoreOptions {
  readonly json: boolean
  readonly watch: boolean
}

const graceMs = 2_000
const watchMs = 1_000

/** `chaperone status`: who enforces the store's records. Ends with 4 when a sidecar is silent or behind. */
export function registerStatus(program: Command): void {
  const command = program
    .command('status')
    .description('show the store and each sidecar; ends with 4 when one is silent or behind')
    .option('--json', 'print JSON', false)
    .option('--watch', 'again every second, until it is stopped', false)
  addStoreOptions(command).action(async (options: StatusOptions) => {
    process.exitCode = await status(options)
  })
}

async function status({ json, watch, ...options }: StatusOptions): Promise<number> {
  const store = readStoreOptions(options)
  await using reader = createPresenceReader(store)
  const look = (): Promise<number> => show(store, { reader, json, clear: watch && !json })
  if (!watch) return await look()
  const stopped = new AbortController()
  void untilSignal().then(() => stopped.abort())
  let code = await look()
  while (await elapsed(watchMs, stopped.signal)) code = await look()
  return code
}

interface ShowOptions {
  readonly reader: PresenceReader
  readonly json: boolean
  readonly clear: boolean
}

async function show(store: Store, { reader, json, clear }: ShowOptions): Promise<number> {
  const options = { clock: systemClock, graceMs: clear ? 0 : graceMs }
  const fleet = await askStore(store.redis, () => readFleet(reader, options))
  const text = json ? JSON.stringify(toJson(store, fleet)) : toTable(store, fleet)
  const home = clear && process.stdout.isTTY ? '\u001b[H\u001b[J' : ''
  process.stdout.write(`${home}${text}\n`)
  return isUpToDate(fleet) ? exitCodes.ok : exitCodes.unconfirmed
}

/** False when it was stopped. */
async function elapsed(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await delay(ms, undefined, { signal })
    return true
  } catch {
    return false
  }
}

function toJson(store: Store, fleet: Fleet): object {
  return {
    trust_domain: store.trustDomain,
    at: instant(fleet.nowMs),
    head: fleet.head,
    records: fleet.records,
    up_to_date: isUpToDate(fleet),
    sidecars: fleet.sidecars.map(({ instance, seenMs, state, ageMs, row }) => ({
      instance,
      state,
      seen_at: instant(seenMs),
      lag: lagOf(fleet, row?.position),
      ...(ageMs !== undefined && { age_ms: ageMs }),
      ...(row && {
        host: row.host,
        version: row.version,
        policy_sha: row.policySha,
        position: row.position,
        exchanges: row.exchanges,
        cut: row.cut,
        ready: row.ready,
        ...(row.enforcedAtMs > 0 && { enforced_at: instant(row.enforcedAtMs) }),
      }),
    })),
  }
}

const columns = [
  'sidecar',
  'host',
  'version',
  'state',
  'position',
  'age',
  'live',
  'cut',
  'policy',
] as const

function toTable(store: Store, fleet: Fleet): string {
  const { head, records, sidecars, nowMs } = fleet
  const wrong = sidecars.filter(({ state }) => state !== 'ok')
  const maxLag = Math.max(0, ...sidecars.map(({ row }) => lagOf(fleet, row?.position) ?? 0))
  const policies = new Set(sidecars.flatMap(({ row }) => row?.policySha ?? []))
  const rows = [columns, ...sidecars.map(toCells)]
  const widths = columns.map((_, at) => Math.max(...rows.map((cells) => (cells[at] ?? '').length)))
  const table = rows.map((cells) =>
    cells
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd(),
  )
  return [
    `store     ${printable(store.redis.url)} ${store.trustDomain}: position ${short(head)}, ${records} records, largest lag ${maxLag}`,
    `sidecars  ${sidecars.length - wrong.length}/${sidecars.length} up to date and ready${policies.size > 1 ? `, ${policies.size} policy sets in use` : ''}`,
    ...(sidecars.length > 0 ? ['', ...table] : []),
    ...wrong.map((sidecar) => explain(sidecar, nowMs)),
  ].join('\n')
}

function toCells({ instance, state, ageMs, row }: JudgedSidecar): readonly string[] {
  return [
    printable(instance.slice(0, 8)),
    printable(row?.host ?? '?'),
    printable(row?.version ?? '?'),
    state,
    short(row?.position ?? '?'),
    ageMs === undefined ? '-' : `${ageMs} ms`,
    String(row?.exchanges ?? '?'),
    String(row?.cut ?? '?'),
    printable((row?.policySha ?? '?').slice(0, 12)),
  ]
}

function explain({ instance, state, seenMs, ageMs, row }: JudgedSidecar, nowMs: number): string {
  const seen = `${printable(instance)} is ${state}: last seen ${instant(seenMs)}`
  if (state !== 'silent' || !row || ageMs === undefined) return seen
  const closesMs = nowMs - ageMs + row.staleAfterReadsMs
  return `${seen}; by that row, it refuses everything by itself from ${instant(closesMs)}`
}

/** How many records it lacks; undefined before its first sync. */
function lagOf({ head }: Fleet, position: string | undefined): number | undefined {
  const n = Number.parseInt(position ?? '', 10)
  return Number.isNaN(n) ? undefined : Math.max(0, Number.parseInt(head, 10) - n)
}

/** The link is told apart by its first digits. */
function short(position: string): string {
  return position.replace(/(:.{8}).*/, '$1')
}

function instant(ms: number): string {
  return new Date(ms).toISOString()
}
