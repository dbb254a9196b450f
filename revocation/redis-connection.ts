import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'
import type { RedisConfig } from '../config/schema.ts'
import { RevocationStoreError } from './revocation-record.ts'

export interface OpenRedisOptions {
  /** How long one command may wait for its reply, milliseconds. Default 1000. */
  readonly commandTimeoutMs?: number
}

/**
 * A connection that reconnects for ever, at most a second apart. It dials at the first command or at `connect()`.
 * A command is sent now or fails now: none is queued while the connection is down and none is sent twice, because a
 * late answer would count as fresh. The password file is read again for every connection.
 * Throws when a TLS or password file cannot be read.
 */
export function openRedis(config: RedisConfig, options: OpenRedisOptions = {}): Redis {
  const url = new URL(config.url)
  const commandTimeout = options.commandTimeoutMs ?? 1000
  const password = readPassword(config)
  const redis = new Redis({
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || 6379),
    db: Number(url.pathname.slice(1) || 0),
    ...(config.username !== undefined && { username: config.username }),
    ...(password !== undefined && { password }),
    ...(url.protocol === 'rediss:' && { tls: tlsFiles(config) }),
    // RESP3 lets one connection both listen and ask: a reply then proves that every earlier push has arrived.
    protocol: 3,
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    disableClientInfo: true,
    keepAlive: 5000,
    connectTimeout: 2000,
    // The client waits so long for the end of a stream that is closed already: a command would hang at its end.
    disconnectTimeout: 200,
    commandTimeout,
    // A frozen server or a cut cable gives no error: only silence after a question shows it.
    socketTimeout: commandTimeout * 2,
    retryStrategy: () => minRetryMs + Math.random() * (maxRetryMs - minRetryMs),
  })
  redis.on('close', () => {
    try {
      const rotated = readPassword(config)
      if (rotated !== undefined) redis.options.password = rotated
    } catch {
      // The file is being replaced: the password at hand serves until the next connection.
    }
  })
  return redis
}

/**
 * Resolves when commands can be sent. Rejects with `RevocationStoreError`, `ERR_REVOCATION_STORE_UNAVAILABLE`, after
 * `timeoutMs`.
 */
export async function untilReady(redis: Redis, timeoutMs: number): Promise<void> {
  if (redis.status === 'ready') return
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const timer = setTimeout(() => {
    reject(
      new RevocationStoreError(
        'ERR_REVOCATION_STORE_UNAVAILABLE',
        `Redis did not answer within ${timeoutMs} ms`,
      ),
    )
  }, timeoutMs)
  redis.once('ready', resolve)
  // Its outcome comes as `ready`, or as another attempt.
  if (redis.status === 'wait') redis.connect().catch(() => undefined)
  try {
    await promise
  } finally {
    clearTimeout(timer)
    redis.off('ready', resolve)
  }
}

/** What may be logged of a fault: the errors of the client carry the command, and so the password of `HELLO`. */
export function describeFault(error: unknown): { readonly code: string; readonly reason: string } {
  if (!(error instanceof Error)) return { code: 'ERR_UNKNOWN', reason: 'unknown' }
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name
  return { code, reason: error.message.slice(0, 200) }
}

const minRetryMs = 50
const maxRetryMs = 1000

function readPassword({ passwordFile }: RedisConfig): string | undefined {
  return passwordFile === undefined ? undefined : readFileSync(passwordFile, 'utf8').trim()
}

function tlsFiles({ caFile, certFile, keyFile }: RedisConfig) {
  return {
    ...(caFile !== undefined && { ca: readFileSync(caFile) }),
    ...(certFile !== undefined && { cert: readFileSync(certFile) }),
    ...(keyFile !== undefined && { key: readFileSync(keyFile) }),
  }
}
