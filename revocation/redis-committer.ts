import type { Redis } from 'ioredis'
import type { RedisConfig } from '../config/schema.ts'
import type { Clock, Revocation } from '../policy/types.ts'
import { awaitDurability, type Durability } from './durability.ts'
import type { Committed, RevocationCommitter } from './feed.ts'
import { readInForce, type InForce } from './in-force.ts'
import type { VerifyLift } from './lift-gate.ts'
import { openRedis, untilReady } from './redis-connection.ts'
import { redisKeys, type RedisKeys } from './redis-keys.ts'
import { redisScripts } from './redis-scripts.ts'
import { parseEnvelope, RevocationStoreError } from './revocation-record.ts'

export interface RedisCommitter extends RevocationCommitter, AsyncDisposable {
  /** Of the last `limit` entries of the log, at most 10,000, the records that are neither lifted nor expired, newest first. */
  list(limit: number): Promise<readonly Revocation[]>
  /** All records in force that fit, however old; of more than 50,000 the newest. It reads the whole store. */
  inForce(fits?: (record: Revocation) => boolean): Promise<InForce>
  /** How safe in the store is what was committed here last. Waits a few seconds at most and never rejects. */
  durability(options: { readonly atLeast: number }): Promise<Durability>
}

/**
 * Commits revocations to Redis. Nothing needs to be set up first: the first commit makes the head. All methods reject
 * with `RevocationStoreError`; after a timeout a commit may or may not have been done, and repeating it is safe.
 */
export function createRedisCommitter(options: {
  readonly redis: RedisConfig
  readonly trustDomain: string
  readonly clock: Clock
  /** Absent: nothing counts as lifted. */
  readonly verifyLift?: VerifyLift
}): RedisCommitter {
  const keys = redisKeys(options)
  const redis = openRedis(options.redis, { commandTimeoutMs })
  // Every fault rejects the command that it hits; without a listener it would be printed too.
  redis.on('error', () => undefined)
  const scripts = redisScripts(redis, keys)
  let connection = 0
  redis.on('close', () => void connection++)
  let committedOn: number | undefined
  const commit = async (write: () => Promise<Committed>): Promise<Committed> => {
    const committed = await attempt(redis, write)
    committedOn = connection
    return committed
  }
  return {
    commit: (draft) => commit(() => scripts.commit(draft)),
    commitLift: (lift) => commit(() => scripts.commitLift(lift)),
    // Another connection may lead to a master that never had the record, and all its replicas with it.
    durability: async (wanted) =>
      committedOn === connection
        ? awaitDurability(redis, wanted)
        : { kind: 'unknown', why: 'the connection ended' },
    list: (limit) => attempt(redis, () => list(redis, { ...options, keys, limit })),
    inForce: (fits = () => true) =>
      attempt(redis, () => readInForce(redis, { ...options, keys, fits, limit: maxInForce })),
    async [Symbol.asyncDispose]() {
      redis.disconnect()
    },
  }
}

const commandTimeoutMs = 3000
const readyTimeoutMs = 5000
const maxListed = 10_000
const maxInForce = 50_000

async function list(
  redis: Redis,
  options: {
    readonly keys: RedisKeys
    readonly limit: number
    readonly clock: Clock
    readonly verifyLift?: VerifyLift
  },
): Promise<readonly Revocation[]> {
  const count = Math.min(options.limit, maxListed)
  if (count < 1) return []
  const entries = await redis.xrevrange(options.keys.log, '+', '-', 'COUNT', count)
  const items = entries.flatMap(([, fields]) => parseEnvelope(fields.at(-1) ?? '') ?? [])
  const lifted = new Set<string>()
  for (const item of items) {
    if (item.kind !== 'lift') continue
    const result = await options.verifyLift?.(item.lift.compact)
    if (result?.ok) for (const rid of result.lift.lifts) lifted.add(rid)
  }
  const nowMs = options.clock.now()
  return items
    .flatMap((item) => (item.kind === 'record' ? [item.record] : []))
    .filter(({ rid, expiresAtMs: at }) => !lifted.has(rid) && (at === 0 || at > nowMs))
}

async function attempt<T>(redis: Redis, ask: () => Promise<T>): Promise<T> {
  await untilReady(redis, readyTimeoutMs)
  try {
    return await ask()
  } catch (error) {
    throw toStoreError(error)
  }
}

/** The client's error carries the whole command: only its kind goes on. */
function toStoreError(error: unknown): RevocationStoreError {
  if (error instanceof RevocationStoreError) return error
  const message = error instanceof Error ? error.message : ''
  if (message.startsWith('RIDCONFLICT')) {
    return new RevocationStoreError(
      'ERR_REVOCATION_RID_CONFLICT',
      'Another revocation has this rid already',
    )
  }
  const [kind = ''] = /^[A-Z]{3,}/.exec(message) ?? []
  return new RevocationStoreError(
    'ERR_REVOCATION_STORE_UNAVAILABLE',
    kind === '' ? 'Redis did not carry it out' : `Redis refused: ${kind}`,
  )
}
