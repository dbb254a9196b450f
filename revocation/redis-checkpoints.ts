import type { Redis } from 'ioredis'
import * as v from 'valibot'
import type { RedisConfig } from '../config/schema.ts'
import { openRedis, untilReady } from './redis-connection.ts'
import { redisKeys } from './redis-keys.ts'
import { RevocationStoreError } from './revocation-record.ts'
import { runScript } from './run-script.ts'

/** The last signed checkpoint of each process of the fleet, in one chain. Rejects within two seconds. */
export interface RedisCheckpoints extends AsyncDisposable {
  /** Puts the newest checkpoint of a process. Resolves with where the fleet's chain is after it, `n:h`. */
  put(checkpoint: SignedCheckpoint): Promise<string>
  read(): Promise<StoredCheckpoints>
}

/** A checkpoint as its process signed it. */
export interface SignedCheckpoint {
  readonly instance: string
  readonly seq: number
  readonly hash: string
  /** Compact JWS. */
  readonly sig: string
}

export interface StoredCheckpoints {
  /** `n:h`; `0:0` when nothing was ever put. */
  readonly head: string
  readonly checkpoints: readonly (SignedCheckpoint & {
    /** Where the fleet's chain was after it. */
    readonly fleet: string
    /** Epoch milliseconds of the server. */
    readonly atMs: number
  })[]
}

/** Throws when a TLS or password file cannot be read. */
export function createRedisCheckpoints(options: {
  readonly redis: RedisConfig
  readonly trustDomain: string
}): RedisCheckpoints {
  const { checkpoints, checkpointsHead, checkpointsSeen } = redisKeys(options)
  const redis = openRedis(options.redis)
  // Every fault rejects the command that it hits; without a listener it would be printed too.
  redis.on('error', () => undefined)
  return {
    put: async ({ instance, seq, hash, sig }) => {
      const reply = await attempt(redis, () =>
        runScript(redis, putScript, {
          keys: [checkpoints, checkpointsHead, checkpointsSeen],
          args: [instance, JSON.stringify({ seq, hash, sig }), keptMs, maxInstances],
        }),
      )
      if (typeof reply !== 'string') throw unreadable()
      return reply
    },
    read: async () => {
      const [head, rows] = await attempt(redis, () =>
        Promise.all([redis.get(checkpointsHead), redis.hgetall(checkpoints)]),
      )
      return { head: head ?? '0:0', checkpoints: Object.entries(rows).map(toCheckpoint) }
    },
    async [Symbol.asyncDispose]() {
      redis.disconnect()
    },
  }
}

const readyTimeoutMs = 1_000
const keptMs = 90 * 24 * 3_600_000
const maxInstances = 10_000

/**
 * KEYS: checkpoints, head, seen. ARGV: instance, checkpoint as JSON text, milliseconds after which one is forgotten,
 * most processes. Each links to the one that the fleet put before it, so a process that signs the head that it was
 * given bears witness of all others.
 */
const putScript = `
local time = redis.call('TIME')
local now = string.format('%d%03d', time[1], math.floor(time[2] / 1000))
local n, h = string.match(redis.call('GET', KEYS[2]) or '0:0', '^(%d+):(%x+)$')
if not n then return redis.error_reply('BADHEAD the head is not readable') end
local function forget(instance)
  redis.call('HDEL', KEYS[1], instance)
  redis.call('ZREM', KEYS[3], instance)
end
local oldest = string.format('%.0f', tonumber(now) - tonumber(ARGV[3]))
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. oldest, 'LIMIT', 0, 16)) do
  forget(old)
end
local head = string.format('%.0f', tonumber(n) + 1) .. ':' .. redis.sha1hex(h .. ARGV[1] .. ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], '{"fleet":"' .. head .. '","atMs":' .. now .. ',"checkpoint":' .. ARGV[2] .. '}')
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('SET', KEYS[2], head)
local over = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[4])
if over > 0 then
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '+inf', 'LIMIT', 0, over)) do
    forget(old)
  end
end
return head
`

const rowSchema = v.object({
  fleet: v.pipe(v.string(), v.regex(/^\d{1,15}:[0-9a-f]{40}$/)),
  atMs: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(8.64e15)),
  checkpoint: v.object({
    seq: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
    hash: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
    sig: v.pipe(v.string(), v.maxLength(4096)),
  }),
})

/** What stands there and is no checkpoint is a fault, never nothing: it may have been one. */
function toCheckpoint([instance, text]: readonly [
  string,
  string,
]): StoredCheckpoints['checkpoints'][number] {
  const read = v.safeParse(v.pipe(v.string(), v.parseJson(), rowSchema), text)
  if (!read.success) throw unreadable()
  const { fleet, atMs, checkpoint } = read.output
  return { instance, fleet, atMs, ...checkpoint }
}

function unreadable(): RevocationStoreError {
  return new RevocationStoreError(
    'ERR_REVOCATION_STORE_REPLY',
    'Cannot read the checkpoints in Redis',
  )
}

async function attempt<T>(redis: Redis, ask: () => Promise<T>): Promise<T> {
  await untilReady(redis, readyTimeoutMs)
  try {
    return await ask()
  } catch {
    // The client's error carries the whole command.
    throw new RevocationStoreError(
      'ERR_REVOCATION_STORE_UNAVAILABLE',
      'Redis did not answer for the checkpoints',
    )
  }
}
