import type { Command } from 'commander'
import type { Revocation } from '../policy/types.ts'
import { liftVerifier } from '../proxy/lift-verifier.ts'
import { systemClock } from '../proxy/system-clock.ts'
import { isUpToDate, readFleet, type Fleet, type JudgedSidecar } from '../revocation/fleet.ts'
import { parsePosition } from '../revocation/link-hash.ts'
import { createPresenceReader, type PresenceReader } from '../revocation/presence-reader.ts'
import { createRedisCommitter, type RedisCommitter } from '../revocation/redis-committer.ts'
import { exitCodes } from './exit-codes.ts'
import { fleetTable, instant, shortPosition, sidecarsJson } from './fleet-table.ts'
import { printable } from './printable.ts'
import {
  addStoreOptions,
  askStore,
  readStoreOptions,
  type Store,
  type StoreOptions,
} from './store-options.ts'
import { taskLines, taskTree } from './live-tasks.ts'
import { repeatUntilSignal } from './until-signal.ts'

interface TopOptions extends StoreOptions {
  readonly json: boolean
  readonly once: boolean
}

/** `chaperone top`: the fleet, the tasks in flight and the last records, drawn anew every second on a terminal. */
export function registerTop(program: Command): void {
  const command = program
    .command('top')
    .description('show sidecars, tasks in flight and the last records, live on a terminal')
    .option('--once', 'print it once; so it is without a terminal', false)
    .option('--json', 'print it once, as JSON', false)
  addStoreOptions(command).action(async (options: TopOptions) => {
    process.exitCode = await top(options)
  })
}

const everyMs = 1_000
/** A lift takes its record out of the list: some more are read than shown. */
const maxRead = 100
const maxShown = { sidecars: 15, tasks: 12, revocations: 6 }

async function top({ json, once, ...options }: TopOptions): Promise<number> {
  const store = readStoreOptions(options)
  const { operators = [], trustDomain } = store
  const verifyLift = liftVerifier({ operators, trustDomain })
  await using reader = createPresenceReader(store)
  await using committer = createRedisCommitter({ ...store, clock: systemClock, verifyLift })
  const look = (): Promise<Picture> => askStore(store.redis, () => take({ reader, committer }))
  if (json || once || !process.stdout.isTTY) {
    const picture = await look()
    const text = json ? JSON.stringify(toJson(store, picture)) : linesOf(store, picture).join('\n')
    process.stdout.write(`${text}\n`)
    return exitCodes.ok
  }
  await live(store, look)
  // A question that the store never answers would hold the terminal until its limit.
  process.exit(exitCodes.ok)
}

/** What it shows. */
interface Picture {
  readonly fleet: Fleet
  readonly revocations: readonly Revocation[]
}

async function take(from: {
  readonly reader: PresenceReader
  readonly committer: RedisCommitter
}): Promise<Picture> {
  const [fleet, revocations] = await Promise.all([
    readFleet(from.reader, { clock: systemClock, graceMs: 0, liveTasks: true }),
    from.committer.list(maxRead),
  ])
  return { fleet, revocations: revocations.slice(0, maxShown.revocations) }
}

/** Goes on while the store does not answer: what it showed last stays, and says how old it is. */
async function live(store: Store, look: () => Promise<Picture>): Promise<void> {
  let lines: readonly string[] = []
  await repeatUntilSignal(everyMs, async () => {
    try {
      lines = linesOf(store, await look())
      draw(lines)
    } catch (error) {
      const why = error instanceof Error ? error.message : 'unknown error'
      draw([...why.split('\n').map(printable), 'what follows is what it said last', '', ...lines])
    }
  })
}

/** From the top, and only what fits: a line that wraps or scrolls would be drawn over another one. */
function draw(lines: readonly string[]): void {
  // A terminal that does not know its size says 0.
  const { columns, rows } = process.stdout
  const shown = lines.slice(0, (rows || 24) - 1).map((line) => line.slice(0, columns || 80))
  process.stdout.write(`\u001b[H${shown.map((line) => `${line}\u001b[K\n`).join('')}\u001b[J`)
}

function linesOf(store: Store, { fleet, revocations }: Picture): readonly string[] {
  const { head, records, sidecars, nowMs } = fleet
  const tasks = taskTree(sidecars)
  const ok = sidecars.filter(({ state }) => state === 'ok').length
  const shown = worstFirst(sidecars).slice(0, maxShown.sidecars)
  const more = sidecars.length - shown.length
  return [
    `store     ${printable(store.redis.url)} ${store.trustDomain}: position ${shortPosition(head)}, ${records} records, ${instant(nowMs)}`,
    `sidecars  ${ok}/${sidecars.length} up to date and ready, ${exchangesOf(fleet)} exchanges in flight`,
    ...(shown.length > 0 ? ['', ...fleetTable(shown)] : []),
    ...(more > 0 ? [`and ${more} more`] : []),
    '',
    `tasks     ${tasks.length} in flight`,
    ...taskLines(tasks, maxShown.tasks),
    '',
    `records   ${revocations.length === 0 ? `none in force in the last ${maxRead} entries of the log` : 'the last in force'}`,
    ...revocations.map((record) => `  ${lineOf(record, fleet)}`),
  ]
}

function lineOf(record: Revocation, fleet: Fleet): string {
  const { op, subject, reason, by, atMs, rid } = record
  const enforced = `${enforcing(record, fleet)}/${fleet.sidecars.length}`
  return printable(
    `${instant(atMs)}  ${op.padEnd(10)}  ${subject}  enforced ${enforced}  "${reason}" by ${by}  ${rid}`,
  )
}

function toJson(store: Store, { fleet, revocations }: Picture): object {
  return {
    trust_domain: store.trustDomain,
    at: instant(fleet.nowMs),
    head: fleet.head,
    records: fleet.records,
    up_to_date: isUpToDate(fleet),
    exchanges: exchangesOf(fleet),
    sidecars: sidecarsJson(fleet),
    tasks: taskTree(fleet.sidecars),
    revocations: revocations.map((record) => ({
      rid: record.rid,
      op: record.op,
      subject: record.subject,
      reason: record.reason,
      by: record.by,
      recorded_at: instant(record.atMs),
      enforced: enforcing(record, fleet),
    })),
  }
}

/** How many sidecars have the record, by the positions that they wrote last. */
function enforcing({ epoch = Infinity }: Revocation, { sidecars }: Fleet): number {
  return sidecars.filter(({ row, state }) => {
    const at = parsePosition(row?.position ?? '-')
    return state !== 'forked' && at !== undefined && at.n >= epoch
  }).length
}

function exchangesOf({ sidecars }: Fleet): number {
  return sidecars.reduce((sum, sidecar) => sum + exchangesIn(sidecar), 0)
}

/** What needs a look first, then the busiest. */
function worstFirst(sidecars: readonly JudgedSidecar[]): readonly JudgedSidecar[] {
  return sidecars.toSorted((a, b) => isOk(a) - isOk(b) || exchangesIn(b) - exchangesIn(a))
}

function isOk({ state }: JudgedSidecar): number {
  return Number(state === 'ok')
}

function exchangesIn({ row }: JudgedSidecar): number {
  return row?.exchanges ?? 0
}
