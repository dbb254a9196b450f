import * as v from 'valibot'
import { sensitivities } from '../policy/types.ts'

/**
 * What a reader of logs relies on, parsed: a log comes from another machine, and whoever can write it can seal anything.
 * Undefined when the line is no record of this version; the chain is checked elsewhere.
 */
export function readRecord(line: string): ReadRecord | undefined {
  try {
    const read = v.safeParse(record, JSON.parse(line))
    return read.success ? read.output : undefined
  } catch {
    return undefined
  }
}

const envelope = {
  v: v.literal(1),
  seq: v.number(),
  ts: v.pipe(v.string(), v.isoTimestamp()),
  mono_ns: v.pipe(v.string(), v.regex(/^\d{1,20}$/)),
  sidecar: v.object({ instance: v.string(), version: v.string() }),
  hash: v.string(),
  prev: v.string(),
}

const decision = v.object({
  ...envelope,
  type: v.literal('decision'),
  decision_id: v.string(),
  upstream: v.nullable(v.string()),
  agent: v.nullable(v.object({ spiffe_id: v.string() })),
  task: v.nullable(
    v.object({
      txn: v.string(),
      chain: v.array(v.string()),
      ancestors: v.optional(v.array(v.object({ txn: v.string(), spiffe_id: v.string() })), []),
      approvers: v.array(v.string()),
      purpose: v.string(),
      sensitivity: v.optional(v.picklist(sensitivities)),
    }),
  ),
  request: v.object({
    method: v.string(),
    path: v.string(),
    has_query: v.optional(v.boolean()),
    kind: v.optional(v.nullable(v.picklist(['http', 'websocket', 'mcp']))),
    mcp: v.optional(v.object({ method: v.string(), tool: v.optional(v.string()) })),
    args_sha256: v.optional(v.string()),
    retry_count: v.optional(v.number()),
  }),
  decision: v.object({
    effect: v.picklist(['allow', 'deny', 'step-up']),
    code: v.nullable(v.string()),
    detail: v.nullable(v.string()),
    policy_ids: v.array(v.string()),
    policy_set_sha: v.string(),
    revocation_epoch: v.string(),
    rid: v.optional(v.string()),
  }),
  after_revocation: v.boolean(),
})

const outcome = v.object({
  ...envelope,
  type: v.literal('outcome'),
  decision_id: v.string(),
  txn: v.nullable(v.string()),
  status: v.nullable(v.number()),
  end: v.string(),
  bytes_up: v.number(),
  bytes_down: v.number(),
  duration_ms: v.number(),
  error: v.optional(v.string()),
  cut: v.optional(
    v.object({
      code: v.string(),
      rid: v.optional(v.string()),
      how: v.string(),
      after_ms: v.number(),
      last_up_ms: v.optional(v.number()),
      last_down_ms: v.optional(v.number()),
    }),
  ),
})

const revocation = v.object({
  ...envelope,
  type: v.literal('revocation'),
  rid: v.string(),
  op: v.string(),
  subject: v.string(),
  reason: v.string(),
  by: v.string(),
  recorded_at: v.pipe(v.string(), v.isoTimestamp()),
  expires_at: v.optional(v.pipe(v.string(), v.isoTimestamp())),
  revocation_epoch: v.string(),
  recorded_epoch: v.optional(v.number()),
  exchanges_cut: v.number(),
})

const lift = v.object({
  ...envelope,
  type: v.literal('lift'),
  rid: v.string(),
  lifts: v.array(v.string()),
  reason: v.string(),
  by: v.string(),
  signed_at: v.optional(v.pipe(v.string(), v.isoTimestamp())),
})

const lifecycle = v.object({
  ...envelope,
  type: v.picklist(['start', 'stop', 'config', 'heartbeat']),
})

const unread = v.object({
  ...envelope,
  type: v.literal('unread'),
  detail: v.record(v.string(), v.number()),
})

const gap = v.object({
  ...envelope,
  type: v.literal('gap'),
  detail: v.object({ cause: v.string(), since: v.string(), records: v.number() }),
})

const checkpoint = v.object({
  ...envelope,
  type: v.literal('checkpoint'),
  checkpoint: v.object({
    seq: v.number(),
    hash: v.string(),
    records: v.number(),
    fleet: v.optional(v.pipe(v.string(), v.regex(/^\d{1,15}:[0-9a-f]{40}$/))),
    sig: v.string(),
  }),
})

const record = v.union([decision, outcome, revocation, lift, lifecycle, unread, gap, checkpoint])

export type ReadRecord = v.InferOutput<typeof record>
export type ReadDecision = v.InferOutput<typeof decision>
export type ReadOutcome = v.InferOutput<typeof outcome>
export type ReadRevocation = v.InferOutput<typeof revocation>
export type ReadLift = v.InferOutput<typeof lift>
export type ReadGap = v.InferOutput<typeof gap>
export type ReadCheckpoint = v.InferOutput<typeof checkpoint>
