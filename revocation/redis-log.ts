import type { Redis } from 'ioredis'
import * as v from 'valibot'
import { genesis, linkHash, parsePosition, type Position } from './link-hash.ts'
import type { RedisKeys } from './redis-keys.ts'
import { parseEnvelope, RevocationStoreError, type StoredItem } from './revocation-record.ts'

/** One atomic look at the store. */
export interface LogPage {
  readonly head: Position
  readonly entries: readonly LogEntry[]
  /** Subjects that somebody put into the set by hand, at most 1000. */
  readonly revoked: readonly string[]
  /** Epoch milliseconds on the server's clock. */
  readonly serverMs: number
}

export interface LogEntry {
  readonly previous: string
  readonly link: string
  readonly envelope: string
  readonly item: StoredItem
}

/** The most entries in one reply. */
export const maxPageEntries = 1000

/**
 * Reads head, time, the bare set, and the log after a position, at most `count` entries, in one transaction with a write that
 * changes nothing: a replica, and a master that is cut off from its replicas, refuse it and the rest with it. Rejects
 * also when something cannot be read: what cannot be read cannot be enforced, so it must not count as known.
 */
export async function readLog(
  redis: Redis,
  options: { readonly keys: RedisKeys; readonly after: Position; readonly count: number },
): Promise<LogPage> {
  const { keys, after, count } = options
  const replies = await redis
    .multi()
    .get(keys.head)
    .xrange(keys.log, `${after.n + 1}-0`, '+', 'COUNT', count)
    .time()
    .srandmember(keys.revoked, maxBare)
    .del(keys.probe)
    .exec()
  const read = v.safeParse(pageSchema, replies)
  if (!read.success) throw unreadable('the log')
  const [[, head], [, entries], [, [seconds, micros]], [, revoked]] = read.output
  return {
    head: toPosition(head),
    entries: entries.map(([id, fields]) => toEntry(id, fields)),
    revoked,
    serverMs: Number(seconds) * 1000 + Math.floor(Number(micros) / 1000),
  }
}

/** Where the log stands. The position before the first entry when there is no head. */
export async function readHead(redis: Redis, keys: RedisKeys): Promise<Position> {
  return toPosition(await redis.get(keys.head))
}

/**
 * Every record and lift of the store, in slices of at most 100, from replies of about `count`. Rejects like `readLog()`.
 */
export async function* scanRecords(
  redis: Redis,
  scan: { readonly keys: RedisKeys; readonly count: number },
): AsyncGenerator<readonly StoredItem[]> {
  for await (const envelopes of scanEnvelopes(redis, scan)) yield envelopes.map(toItem)
}

/** What `scanRecords()` reads, unread: one that nobody can read must not hide the others from an operator. */
export async function* scanEnvelopes(
  redis: Redis,
  { keys, count }: { readonly keys: RedisKeys; readonly count: number },
): AsyncGenerator<readonly string[]> {
  let cursor = '0'
  for (let scanned = 0; scanned < maxScanned; scanned += count) {
    const [next, fields] = await redis.hscan(keys.records, cursor, 'COUNT', count)
    yield* slicesOf(fields.filter((_, index) => index % 2 === 1))
    if (next === '0') return
    cursor = next
  }
  throw unreadable('the records: too many')
}

/** A few at a time: the event loop has its turn between two of them. */
export function* slicesOf<T>(items: readonly T[]): Generator<readonly T[]> {
  for (let at = 0; at < items.length; at += sliceItems) yield items.slice(at, at + sliceItems)
}

/** The position after these entries, or undefined when they do not link to `from` one by one. */
export function followLinks(from: Position, entries: readonly LogEntry[]): Position | undefined {
  let at = from
  for (const { previous, link, envelope, item } of entries) {
    const n = positionOf(item)
    const follows = n === at.n + 1 && previous === at.h
    if (!follows || link !== linkHash(previous, envelope)) return undefined
    at = { n, h: link }
  }
  return at
}

export function positionOf(item: StoredItem): number {
  return item.kind === 'lift' ? item.lift.epoch : (item.record.epoch ?? 0)
}

/** About a millisecond of work. */
const sliceItems = 100
const maxBare = 1000
const maxScanned = 10_000_000

const noError = v.null()
const pageSchema = v.tuple([
  v.tuple([noError, v.nullable(v.string())]),
  v.tuple([noError, v.array(v.tuple([v.string(), v.array(v.string())]))]),
  v.tuple([
    noError,
    v.tuple([v.union([v.string(), v.number()]), v.union([v.string(), v.number()])]),
  ]),
  v.tuple([noError, v.array(v.string())]),
  v.tuple([noError, v.number()]),
])

function toPosition(head: string | null): Position {
  if (head === null) return genesis
  const position = parsePosition(head)
  if (!position) throw unreadable('the head')
  return position
}

function toEntry(id: string, fields: readonly string[]): LogEntry {
  const [p, previous, h, link, e, envelope] = fields
  if (p !== 'p' || h !== 'h' || e !== 'e') throw unreadable(`entry ${id} of the log`)
  if (previous === undefined || link === undefined || envelope === undefined) {
    throw unreadable(`entry ${id} of the log`)
  }
  return { previous, link, envelope, item: toItem(envelope) }
}

function toItem(envelope: string): StoredItem {
  const item = parseEnvelope(envelope)
  if (!item) throw unreadable('a record')
  return item
}

function unreadable(what: string): RevocationStoreError {
  return new RevocationStoreError('ERR_REVOCATION_STORE_REPLY', `Cannot read ${what} in Redis`)
}
