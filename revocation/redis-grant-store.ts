import type { Redis } from 'ioredis'
import type { RedisConfig } from '../config/schema.ts'
import { parseSubject } from '../policy/subject.ts'
import type { Clock } from '../policy/types.ts'
import type { GrantStore, StoredGrant } from './grant-store.ts'
import { openRedis, untilReady } from './redis-connection.ts'
import { redisKeys, type RedisKeys } from './redis-keys.ts'

/** The grant store could not answer, or was asked for a task that cannot exist. */
export class GrantStoreError extends Error {
  override readonly name = 'GrantStoreError'
  readonly code: 'ERR_GRANT_STORE_UNAVAILABLE' | 'ERR_GRANT_STORE_TXN'
  constructor(code: GrantStoreError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/**
 * Grants in Redis, each until an hour after its expiry; `list()` knows the newest 10,000. Its methods reject with
 * `GrantStoreError`, within two seconds.
 */
export function createRedisGrantStore(options: {
  readonly redis: RedisConfig
  readonly trustDomain: string
  readonly clock: Clock
}): GrantStore & AsyncDisposable {
  const keys = redisKeys(options)
  const redis = openRedis(options.redis)
  // Every fault rejects the command that it hits; without a listener it would be printed too.
  redis.on('error', () => undefined)
  return {
    get: async (txn) => {
      if (!isTxn(txn)) return undefined
      return (await attempt(redis, () => redis.get(keys.grant(txn)))) ?? undefined
    },
    put: async (txn, grant) => {
      if (!isTxn(txn)) throw new GrantStoreError('ERR_GRANT_STORE_TXN', 'Not the id of a task')
      await attempt(redis, () => put(redis, { keys, txn, grant, nowMs: options.clock.now() }))
    },
    list: (limit) => attempt(redis, () => list(redis, { keys, limit })),
    async [Symbol.asyncDispose]() {
      redis.disconnect()
    },
  }
}

/** Expired grants stay for a while, so that the agent is told `task-expired` and not that there is none. */
const keptAfterExpiryMs = 3_600_000
const readyTimeoutMs = 1000
const maxListed = 10_000

function isTxn(txn: string): boolean {
  return parseSubject(`task:${txn}`) !== undefined
}

async function put(
  redis: Redis,
  options: {
    readonly keys: RedisKeys
    readonly txn: string
    readonly grant: StoredGrant
    readonly nowMs: number
  },
): Promise<void> {
  const { keys, txn, grant, nowMs } = options
  const replies = await redis
    .multi()
    .set(keys.grant(txn), grant.compact, 'PXAT', grant.expiresAtMs + keptAfterExpiryMs)
    .zadd(keys.grants, nowMs, txn)
    .zremrangebyrank(keys.grants, 0, -(maxListed + 1))
    .exec()
  assertNoFault(replies)
}

async function list(
  redis: Redis,
  { keys, limit }: { readonly keys: RedisKeys; readonly limit: number },
): Promise<readonly StoredGrant[]> {
  const count = Math.min(limit, maxListed)
  if (count < 1) return []
  const txns = await redis.zrevrange(keys.grants, 0, count - 1)
  const grants = await Promise.all(txns.map((txn) => read(redis, { keys, txn })))
  return grants.filter((grant) => grant !== undefined)
}

async function read(
  redis: Redis,
  { keys, txn }: { readonly keys: RedisKeys; readonly txn: string },
): Promise<StoredGrant | undefined> {
  const [compact, dropAtMs] = await Promise.all([
    redis.get(keys.grant(txn)),
    redis.pexpiretime(keys.grant(txn)),
  ])
  if (compact === null || dropAtMs < 0) return undefined
  return { txn, compact, expiresAtMs: dropAtMs - keptAfterExpiryMs }
}

function assertNoFault(replies: readonly [Error | null, unknown][] | null): void {
  if (replies?.every(([error]) => error === null)) return
  throw new GrantStoreError('ERR_GRANT_STORE_UNAVAILABLE', 'Redis did not carry it out')
}

/** The client's error carries the command, and with it the grant: it goes no further. */
async function attempt<T>(redis: Redis, ask: () => Promise<T>): Promise<T> {
  try {
    await untilReady(redis, readyTimeoutMs)
    return await ask()
  } catch {
    throw new GrantStoreError('ERR_GRANT_STORE_UNAVAILABLE', 'The grant store did not answer')
  }
}
