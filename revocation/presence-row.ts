import * as v from 'valibot'

/** What a sidecar says of itself. */
export interface PresenceRow {
  readonly host: string
  readonly version: string
  readonly policySha: string
  /** `n:h` of the last complete sync; `-` before the first. */
  readonly position: string
  /** When it last put records in force, epoch milliseconds of the server; 0 = never. */
  readonly enforcedAtMs: number
  readonly exchanges: number
  /** Exchanges cut by revocations since its start. */
  readonly cut: number
  /** Age of its view when it wrote the row; -1 = no view yet, or one that cannot be trusted. */
  readonly ageMs: number
  readonly ready: boolean
  /** The bounds past which it refuses reads, and ends streams, by itself. */
  readonly staleAfterReadsMs: number
  readonly staleAfterStreamsMs: number
}

/** A record that a sidecar has put in force. */
export interface Enforced {
  readonly rid: string
  /** The record's own time: with the `rid`, it tells the committed record from another of that name. */
  readonly recordedAtMs: number
  readonly cut: number
  /** Credentials that it dropped. */
  readonly dropped: number
  /** From hearing of the record until everything that it covers was cut. */
  readonly tookMs: number
}

/** What each task has in flight, by its id. */
export type LiveTasks = ReadonlyMap<string, LiveTask>

export interface LiveTask {
  /** Its own and those of its descendants. */
  readonly exchanges: number
  /** The task that it was delegated from; absent for a root. */
  readonly parent?: string
}

/** The most tasks that a sidecar lists. */
export const maxLiveTasks = 100

export function formatRow(row: PresenceRow): string {
  return JSON.stringify({
    host: row.host.slice(0, maxNameChars),
    version: row.version,
    policy_sha: row.policySha,
    position: row.position,
    enforced_at: row.enforcedAtMs,
    exchanges: row.exchanges,
    cut: row.cut,
    age_ms: row.ageMs,
    ready: row.ready,
    stale_after_reads_ms: row.staleAfterReadsMs,
    stale_after_streams_ms: row.staleAfterStreamsMs,
  })
}

/** Undefined when it is not a row: another program wrote it. */
export function parseRow(text: string): PresenceRow | undefined {
  const read = v.safeParse(rowSchema, parseJson(text))
  if (!read.success) return undefined
  const row = read.output
  return {
    host: row.host,
    version: row.version,
    policySha: row.policy_sha,
    position: row.position,
    enforcedAtMs: row.enforced_at,
    exchanges: row.exchanges,
    cut: row.cut,
    ageMs: row.age_ms,
    ready: row.ready,
    staleAfterReadsMs: row.stale_after_reads_ms,
    staleAfterStreamsMs: row.stale_after_streams_ms,
  }
}

export function formatEnforced(records: readonly Enforced[]): string {
  return JSON.stringify(
    records.map(({ rid, recordedAtMs, cut, tookMs, dropped }) => [
      rid,
      recordedAtMs,
      cut,
      tookMs,
      dropped,
    ]),
  )
}

/** What cannot be read acknowledges nothing. */
export function parseEnforced(text: string): readonly Enforced[] {
  const read = v.safeParse(enforcedSchema, parseJson(text))
  if (!read.success) return []
  return read.output.map(([rid, recordedAtMs, cut, tookMs, dropped]) => ({
    rid,
    recordedAtMs,
    cut,
    tookMs,
    dropped,
  }))
}

export function formatLive(tasks: LiveTasks): string {
  const entries = [...tasks].map(
    ([txn, { exchanges, parent }]) =>
      [txn, parent === undefined ? exchanges : [exchanges, parent]] as const,
  )
  return JSON.stringify(Object.fromEntries(entries))
}

export function parseLive(text: string): LiveTasks {
  const read = v.safeParse(liveSchema, parseJson(text))
  return new Map(read.success ? Object.entries(read.output) : [])
}

const maxNameChars = 255
const name = v.pipe(v.string(), v.maxLength(maxNameChars))
const amount = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const rowSchema = v.object({
  host: name,
  version: name,
  policy_sha: name,
  position: v.pipe(v.string(), v.regex(/^(-|\d{1,15}:[0-9a-f]{1,40})$/)),
  enforced_at: amount,
  exchanges: amount,
  cut: amount,
  age_ms: v.pipe(v.number(), v.safeInteger(), v.minValue(-1)),
  ready: v.boolean(),
  stale_after_reads_ms: amount,
  stale_after_streams_ms: amount,
})
const enforcedSchema = v.array(
  // A sidecar of an earlier version does not say what it dropped.
  v.tuple([v.string(), amount, amount, v.pipe(v.number(), v.minValue(0)), v.optional(amount, 0)]),
)
const liveTask = v.union([
  v.pipe(
    amount,
    v.transform((exchanges) => ({ exchanges })),
  ),
  v.pipe(
    v.tuple([amount, v.string()]),
    v.transform(([exchanges, parent]) => ({ exchanges, parent })),
  ),
])
const liveSchema = v.record(v.pipe(v.string(), v.maxLength(128)), liveTask)

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
