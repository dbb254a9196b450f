import type { Redis } from 'ioredis'
import * as v from 'valibot'
import type { Revocation } from '../policy/types.ts'
import { genesis, linkHash, parsePosition, type Position } from './link-hash.ts'
import type { RedisKeys } from './redis-keys.ts'
import { parseEnvelope, RevocationStoreError } from './revocation-record.ts'

/** One atomic look at the store. */
export interface LogPage {
  readonly head: Position
  readonly entries: readonly LogEntry[]
  /** Epoch milliseconds on the server's clock. */
  readonly serverMs: number
}

export interface LogEntry {
  readonly previous: string
  readonly link: string
  readonly envelope: string
  readonly record: Revocation
}

/**
 * Reads head, time, and the log after a position, at most 1000 entries, in one transaction. Rejects when the store does
 * not answer or something in it cannot be read: what cannot be read cannot be enforced, so it must not count as known.
 */
export async function readLog(
  redis: Redis,
  options: { readonly keys: RedisKeys; readonly after: Position },
): Promise<LogPage> {
  const { keys, after } = options
  const replies = await redis
    .multi()
    .get(keys.head)
    .xrange(keys.log, `${after.n + 1}-0`, '+', 'COUNT', pageEntries)
    .time()
    .exec()
  const read = v.safeParse(pageSchema, replies)
  if (!read.success) throw unreadable('the log')
  const [[, head], [, entries], [, [seconds, micros]]] = read.output
  return {
    head: toPosition(head),
    entries: entries.map(([id, fields]) => toEntry(id, fields)),
    serverMs: Number(seconds) * 1000 + Math.floor(Number(micros) / 1000),
  }
}

/** Where the log stands. The position before the first entry when there is no head. */
export async function readHead(redis: Redis, keys: RedisKeys): Promise<Position> {
  return toPosition(await redis.get(keys.head))
}

/** Every record of the store, page by page. Rejects like `readLog()`. */
export async function* scanRecords(
  redis: Redis,
  keys: RedisKeys,
): AsyncGenerator<readonly Revocation[]> {
  let cursor = '0'
  for (let page = 0; page < maxScanPages; page++) {
    const [next, fields] = await redis.hscan(keys.records, cursor, 'COUNT', pageEntries)
    yield fields.filter((_, index) => index % 2 === 1).map(toRecord)
    if (next === '0') return
    cursor = next
  }
  throw unreadable('the records: too many')
}

/** The position after these entries, or undefined when they do not link to `from` one by one. */
export function followLinks(from: Position, entries: readonly LogEntry[]): Position | undefined {
  let at = from
  for (const { previous, link, envelope, record } of entries) {
    const follows = record.epoch === at.n + 1 && previous === at.h
    if (!follows || link !== linkHash(previous, envelope)) return undefined
    at = { n: record.epoch, h: link }
  }
  return at
}

const pageEntries = 1000
const maxScanPages = 10_000

const noError = v.null()
const pageSchema = v.tuple([
  v.tuple([noError, v.nullable(v.string())]),
  v.tuple([noError, v.array(v.tuple([v.string(), v.array(v.string())]))]),
  v.tuple([
    noError,
    v.tuple([v.union([v.string(), v.number()]), v.union([v.string(), v.number()])]),
  ]),
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
  return { previous, link, envelope, record: toRecord(envelope) }
}

function toRecord(envelope: string): Revocation {
  const record = parseEnvelope(envelope)
  if (!record) throw unreadable('a record')
  return record
}

function unreadable(what: string): RevocationStoreError {
  return new RevocationStoreError('ERR_REVOCATION_STORE_REPLY', `Cannot read ${what} in Redis`)
}
