import type { Command } from 'commander'
import { systemClock } from '../proxy/system-clock.ts'
import { isUpToDate, readFleet, type Fleet, type JudgedSidecar } from '../revocation/fleet.ts'
import { createPresenceReader, type PresenceReader } from '../revocation/presence-reader.ts'
import { exitCodes } from './exit-codes.ts'
import { fleetTable, instant, lagOf, shortPosition, sidecarsJson } from './fleet-table.ts'
import { printable } from './printable.ts'
import {
  addStoreOptions,
  askStore,
  readStoreOptions,
  type Store,
  type StoreOptions,
} from './store-options.ts'
import { repeatUntilSignal } from './until-signal.ts'

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
  const code = watch ? await repeatUntilSignal(watchMs, look) : await look()
  return code ?? exitCodes.unconfirmed
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

function toJson(store: Store, fleet: Fleet): object {
  return {
    trust_domain: store.trustDomain,
    at: instant(fleet.nowMs),
    head: fleet.head,
    records: fleet.records,
    up_to_date: isUpToDate(fleet),
    sidecars: sidecarsJson(fleet),
  }
}

function toTable(store: Store, fleet: Fleet): string {
  const { head, records, sidecars, nowMs } = fleet
  const wrong = sidecars.filter(({ state }) => state !== 'ok')
  const maxLag = Math.max(0, ...sidecars.map(({ row }) => lagOf(head, row?.position) ?? 0))
  const policies = new Set(sidecars.flatMap(({ row }) => row?.policySha ?? []))
  return [
    `store     ${printable(store.redis.url)} ${store.trustDomain}: position ${shortPosition(head)}, ${records} records, largest lag ${maxLag}`,
    `sidecars  ${sidecars.length - wrong.length}/${sidecars.length} up to date and ready${policies.size > 1 ? `, ${policies.size} policy sets in use` : ''}`,
    ...(sidecars.length > 0 ? ['', ...fleetTable(sidecars)] : []),
    ...wrong.map((sidecar) => explain(sidecar, nowMs)),
  ].join('\n')
}

function explain({ instance, state, seenMs, ageMs, row }: JudgedSidecar, nowMs: number): string {
  const seen = `${printable(instance)} is ${state}: last seen ${instant(seenMs)}`
  if (state !== 'silent' || !row || ageMs === undefined) return seen
  const closesMs = nowMs - ageMs + row.staleAfterReadsMs
  return `${seen}; by that row, it refuses everything by itself from ${instant(closesMs)}`
}
