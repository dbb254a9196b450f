import type { RedisConfig } from '../config/schema.ts'

/** The names in Redis of one trust domain. One hash tag, so one slot: scripts and transactions work on a cluster. */
export interface RedisKeys {
  /** String `n:h`: how many entries the log ever had, and the link of the last. */
  readonly head: string
  /** Stream of committed records with ids `n-0`, for catching up; trimmed. */
  readonly log: string
  /** Hash `rid` -> envelope: every record, until an hour after its expiry. */
  readonly records: string
  /** Sorted set `rid` by expiry in epoch milliseconds. */
  readonly expiry: string
  /** Pub/sub channel: envelopes as they are committed, and bare messages by hand. */
  readonly channel: string
  /** Hash instance -> row: what each sidecar says of itself, every second. */
  readonly sidecars: string
  /** Sorted set of instances by when they last wrote their row, epoch milliseconds of the server. */
  readonly seen: string
  /** Hash instance -> tasks with live exchanges, JSON. */
  readonly live: string
  /** Stream of acknowledgements: which sidecar has which record in force; trimmed. */
  readonly acks: string
  /** Set of subjects for `SADD` by hand: each is taken over as a record, and taken out. */
  readonly revoked: string
  /** Hash subject -> `rid` that the last bare assertion became, and that `rid` -> 1 until a lift names it. */
  readonly absorbed: string
  /** Never there: every sync deletes it, because only a master that takes writes lets it. */
  readonly probe: string
  /** Hash instance -> the last signed checkpoint of its audit. */
  readonly checkpoints: string
  /** String `n:h`: how many checkpoints were ever put, and the link of the last. */
  readonly checkpointsHead: string
  /** Sorted set of instances by when they last put one. */
  readonly checkpointsSeen: string
  /** Sorted set of tasks by the time of their `put()`. */
  readonly grants: string
  /** String: the compact JWS of the task's grant. */
  grant(txn: string): string
}

export interface RedisScope {
  readonly redis: Pick<RedisConfig, 'prefix'>
  readonly trustDomain: string
}

export function redisKeys({ redis, trustDomain }: RedisScope): RedisKeys {
  const base = `{${redis.prefix}}:${trustDomain}`
  return {
    head: `${base}:head`,
    log: `${base}:log`,
    records: `${base}:records`,
    expiry: `${base}:expiry`,
    channel: `${base}:revocations`,
    sidecars: `${base}:sidecars`,
    seen: `${base}:sidecars-seen`,
    live: `${base}:sidecars-live`,
    acks: `${base}:acks`,
    revoked: `${base}:revoked`,
    absorbed: `${base}:absorbed`,
    probe: `${base}:probe`,
    checkpoints: `${base}:checkpoints`,
    checkpointsHead: `${base}:checkpoints-head`,
    checkpointsSeen: `${base}:checkpoints-seen`,
    grants: `${base}:grants`,
    grant: (txn) => `${base}:grant:${txn}`,
  }
}

/** The channel on which `PUBLISH <channel> "task:T-1 why"` revokes by hand: `{chaperone}:<trust domain>:revocations`. */
export function revocationChannel(scope: RedisScope): string {
  return redisKeys(scope).channel
}
