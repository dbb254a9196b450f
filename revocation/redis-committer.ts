import type { Redis } from 'ioredis'
import * as v from 'valibot'
import type { RedisConfig } from '../config/schema.ts'
import type { Clock, Revocation } from '../policy/types.ts'
import type { Committed, RevocationCommitter, RevocationDraft } from './feed.ts'
import { openRedis, untilReady } from './redis-connection.ts'
import { redisKeys, type RedisKeys } from './redis-keys.ts'
import { formatDraft, parseEnvelope, RevocationStoreError } from './revocation-record.ts'
import { commitScript } from './scripts.ts'

export interface RedisCommitter extends RevocationCommitter, AsyncDisposable {
  /** Committed records that have not expired, newest first, at most `limit` and at most 10,000. */
  list(limit: number): Promise<readonly Revocation[]>
}

/**
 * Commits revocations to Redis. Nothing needs to be set up first: the first commit makes the head. Both methods reject
 * with `RevocationStoreError`; after a timeout a commit may or may not have been done, and repeating it is safe.
 */
export function createRedisCommitter(options: {
  readonly redis: RedisConfig
  readonly trustDomain: string
  readonly clock: Clock
}): RedisCommitter {
  const keys = redisKeys(options)
  const redis = openRedis(options.redis, { commandTimeoutMs })
  // Every fault rejects the command that it hits; without a listener it would be printed too.
  redis.on('error', () => undefined)
  return {
    commit: (draft) => attempt(redis, () => commit(redis, { keys, draft })),
    list: (limit) => attempt(redis, () => list(redis, { keys, limit, clock: options.clock })),
    async [Symbol.asyncDispose]() {
      redis.disconnect()
    },
  }
}

const commandTimeoutMs = 3000
const readyTimeoutMs = 5000
const maxListed = 10_000

const committedSchema = v.tuple([v.string(), v.pipe(v.string(), v.regex(/^\d{1,15}$/))])

async function commit(
  redis: Redis,
  { keys, draft }: { readonly keys: RedisKeys; readonly draft: RevocationDraft },
): Promise<Committed> {
  const body = formatDraft(draft)
  const reply = await redis.eval(
    commitScript,
    5,
    keys.head,
    keys.log,
    keys.records,
    keys.expiry,
    keys.channel,
    draft.rid,
    body,
    String(draft.expiresAtMs),
  )
  const read = v.safeParse(committedSchema, reply)
  if (!read.success) {
    throw new RevocationStoreError('ERR_REVOCATION_STORE_REPLY', 'Cannot read the reply of Redis')
  }
  const [epoch, atMs] = read.output
  return { epoch, atMs: Number(atMs) }
}

async function list(
  redis: Redis,
  options: { readonly keys: RedisKeys; readonly limit: number; readonly clock: Clock },
): Promise<readonly Revocation[]> {
  const count = Math.min(options.limit, maxListed)
  if (count < 1) return []
  const entries = await redis.xrevrange(options.keys.log, '+', '-', 'COUNT', count)
  const nowMs = options.clock.now()
  return entries
    .flatMap(([, fields]) => parseEnvelope(fields.at(-1) ?? '') ?? [])
    .filter(({ expiresAtMs }) => expiresAtMs === 0 || expiresAtMs > nowMs)
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
