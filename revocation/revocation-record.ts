import { createHash } from 'node:crypto'
import * as v from 'valibot'
import { maxLiftBytes } from '../policy/lift.ts'
import { parseSubject } from '../policy/subject.ts'
import type { Revocation } from '../policy/types.ts'
import type { RevocationDraft } from './feed.ts'

/** What a revocation cannot be committed or stored for: the message names the reason, never the text of the record. */
export class RevocationStoreError extends Error {
  override readonly name = 'RevocationStoreError'
  readonly code:
    | 'ERR_REVOCATION_DRAFT'
    | 'ERR_REVOCATION_RID_CONFLICT'
    | 'ERR_REVOCATION_STORE_REPLY'
    | 'ERR_REVOCATION_STORE_UNAVAILABLE'
  constructor(code: RevocationStoreError['code'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** What a message on the channel says. */
export type HeardMessage =
  | StoredItem
  | { readonly kind: 'unsigned-lift' }
  | { readonly kind: 'malformed' }

/** What an envelope of the store holds. */
export type StoredItem =
  | { readonly kind: 'record'; readonly record: Revocation }
  | { readonly kind: 'lift'; readonly lift: StoredLift }

/** A lift as the store has it: nothing of it counts before its signature verifies. */
export interface StoredLift {
  readonly rid: string
  readonly compact: string
  readonly epoch: number
}

/** Throws `RevocationStoreError` with `ERR_REVOCATION_DRAFT` when a sidecar would not read the draft back. */
export function checkDraft(draft: RevocationDraft): void {
  const read = v.safeParse(draftSchema, draft)
  if (read.success) return
  const [issue] = read.issues
  throw new RevocationStoreError(
    'ERR_REVOCATION_DRAFT',
    `Cannot commit: "${v.getDotPath(issue) ?? 'draft'}" of the revocation is not valid`,
  )
}

/** The bytes of a draft as the store keeps them. Throws like `checkDraft()`. */
export function formatDraft(draft: RevocationDraft): string {
  checkDraft(draft)
  const { rid, op, subject, reason, by, expiresAtMs } = draft
  return JSON.stringify({ rid, op, subject, reason, by, expiresAtMs })
}

/** The bytes of a lift as the store keeps them. */
export function formatLift({ rid, compact }: Pick<StoredLift, 'rid' | 'compact'>): string {
  return JSON.stringify({ rid, op: 'lift', jws: compact })
}

/** Reads an envelope of the store: `{"n":<position>,"atMs":<server time>,"record":<draft or lift>}`. */
export function parseEnvelope(text: string): StoredItem | undefined {
  return text.length > maxMessageBytes ? undefined : toItem(parseJson(text))
}

/** Reads a record as `JSON.stringify()` wrote it. */
export function parseRecord(json: unknown): Revocation | undefined {
  const read = v.safeParse(recordSchema, json)
  if (!read.success) return undefined
  const { epoch, ...record } = read.output
  return epoch === undefined ? record : { ...record, epoch }
}

/**
 * Reads a message of the channel: an envelope, or a bare assertion by hand, `task:T-1 why` or
 * `{"subject":"task:T-1","reason":"why"}`, which becomes a provisional `revoke` for ever. Its `rid` comes from the
 * subject, so that a replay or a storm is one record. A lift is only told apart: without its signature the channel can
 * never take away.
 */
export function parseMessage(payload: string, nowMs: number): HeardMessage {
  if (payload.length > maxMessageBytes) return { kind: 'malformed' }
  if (!payload.startsWith('{')) {
    const [subject = '', ...reason] = payload.trim().split(' ')
    return toBare({ subject, reason: reason.join(' ') }, nowMs)
  }
  const json = parseJson(payload)
  const item = toItem(json)
  if (item) return item
  if (v.is(anyLiftSchema, json)) return { kind: 'unsigned-lift' }
  const bare = v.safeParse(bareSchema, json)
  return bare.success ? toBare(bare.output, nowMs) : { kind: 'malformed' }
}

/** Longer messages and entries are refused unread: subject, reason and the rest fit twice. */
const maxMessageBytes = 16_384
const maxReasonChars = 1024

const subjectSchema = v.pipe(
  v.string(),
  v.check((text) => parseSubject(text) !== undefined),
)
const reasonSchema = v.pipe(v.string(), v.maxLength(maxReasonChars))
const ridSchema = v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,128}$/))
const draftSchema = v.object({
  rid: ridSchema,
  op: v.picklist(['revoke', 'pause', 'quarantine']),
  subject: subjectSchema,
  reason: reasonSchema,
  by: v.pipe(v.string(), v.maxLength(512)),
  expiresAtMs: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
})
/** Six bytes are kept of it. */
const positiveInteger = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(2 ** 48 - 1))
const liftSchema = v.object({
  rid: ridSchema,
  op: v.literal('lift'),
  jws: v.pipe(v.string(), v.maxLength(maxLiftBytes)),
})
const envelopeSchema = v.object({
  n: positiveInteger,
  atMs: positiveInteger,
  record: v.variant('op', [draftSchema, liftSchema]),
})
const recordSchema = v.object({
  ...draftSchema.entries,
  atMs: positiveInteger,
  epoch: v.optional(positiveInteger),
})
const bareSchema = v.strictObject({ subject: v.string(), reason: v.optional(reasonSchema, '') })
const liftOpSchema = v.looseObject({ op: v.picklist(['lift', 'resume']) })
const anyLiftSchema = v.union([liftOpSchema, v.looseObject({ record: liftOpSchema })])

function toItem(json: unknown): StoredItem | undefined {
  const read = v.safeParse(envelopeSchema, json)
  if (!read.success) return undefined
  const { n, atMs, record } = read.output
  if (record.op === 'lift') {
    return { kind: 'lift', lift: { rid: record.rid, compact: record.jws, epoch: n } }
  }
  return { kind: 'record', record: { ...record, atMs, epoch: n } }
}

function toBare(
  said: { readonly subject: string; readonly reason: string },
  nowMs: number,
): HeardMessage {
  const subject = parseSubject(said.subject)
  if (subject === undefined) return { kind: 'malformed' }
  const reason = said.reason.slice(0, maxReasonChars) || 'published on the channel'
  return { kind: 'record', record: provisional(subject, { reason, by: 'channel', nowMs }) }
}

/**
 * What a bare assertion is until the store has given it a `rid`: in force, and without a position. That of a deny file
 * stays so.
 */
export function provisional(
  subject: string,
  said: {
    readonly reason: string
    readonly by: 'channel' | 'set' | 'file'
    readonly nowMs: number
  },
): Revocation {
  const digest = createHash('sha256').update(subject).digest('hex').slice(0, 32)
  const { reason, by, nowMs } = said
  const rid = `${by === 'file' ? 'file' : 'bare'}-${digest}`
  return { rid, op: 'revoke', subject, reason, by, atMs: nowMs, expiresAtMs: 0 }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
