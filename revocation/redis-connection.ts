import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'
import { parseRedisUrl, redisUrlExpected, type RedisTarget } from '../config/redis-url.ts'
import type { RedisConfig } from '../config/schema.ts'
import { masterFinder, type FindMasterOptions } from './find-master.ts'
import { masterConnector } from './master-connector.ts'
import { RevocationStoreError } from './revocation-record.ts'

export interface OpenRedisOptions {
  /** How long one command may wait for its reply, milliseconds. Default 1000. */
  readonly commandTimeoutMs?: number
}

/**
 * A connection that reconnects for ever, at most a second apart. It dials at the first command or at `connect()`.
 * A command is sent now or fails now: none is queued while the connection is down and none is sent twice, because a
 * late answer would count as fresh. With Sentinels or a cluster, each connection goes to the master of that moment. The
 * password files are read again for every connection.
 * Throws when a TLS or password file cannot be read.
 */
export function openRedis(config: RedisConfig, options: OpenRedisOptions = {}): Redis {
  const target = parseRedisUrl(config.url)
  if (!target) throw new TypeError(redisUrlExpected)
  const commandTimeout = options.commandTimeoutMs ?? 1000
  const password = readPassword(config.passwordFile)
  const tls = target.tls ? tlsFiles(config) : undefined
  const redis = new Redis({
    ...(target.kind === 'server'
      ? target.address
      : {
          Connector: masterConnector({
            findMaster: masterFinder({
              target,
              prefix: config.prefix,
              access: accessOf(config, { target, tls }),
            }),
            tls,
            disconnectTimeoutMs,
            retryMs,
          }),
        }),
    db: target.kind === 'cluster' ? 0 : target.db,
    ...(config.username !== undefined && { username: config.username }),
    ...(password !== undefined && { password }),
    ...(tls && { tls }),
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
    disconnectTimeout: disconnectTimeoutMs,
    commandTimeout,
    // A frozen server or a cut cable gives no error: only silence after a question shows it.
    socketTimeout: commandTimeout * 2,
    retryStrategy: retryMs,
    reconnectOnError: (error) => {
      if (!notTheMaster.test(error.message)) return false
      // The commands that follow it only learn that the connection ended.
      redis.emit('error', error)
      return true
    },
  })
  redis.on('close', () => {
    try {
      const rotated = readPassword(config.passwordFile)
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
  let why = ''
  const onError = (error: Error): void => {
    why = `: ${describeFault(error).reason}`
  }
  const timer = setTimeout(() => {
    reject(
      new RevocationStoreError(
        'ERR_REVOCATION_STORE_UNAVAILABLE',
        `Redis did not answer within ${timeoutMs} ms${why}`,
      ),
    )
  }, timeoutMs)
  redis.once('ready', resolve)
  redis.on('error', onError)
  // Its outcome comes as `ready`, or as another attempt.
  if (redis.status === 'wait') redis.connect().catch(() => undefined)
  try {
    await promise
  } finally {
    clearTimeout(timer)
    redis.off('ready', resolve)
    redis.off('error', onError)
  }
}

/** What may be logged of a fault: the errors of the client carry the command, and so the password of `HELLO`. */
export function describeFault(error: unknown): { readonly code: string; readonly reason: string } {
  if (!(error instanceof Error)) return { code: 'ERR_UNKNOWN', reason: 'unknown' }
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name
  return { code, reason: error.message.slice(0, 200) }
}

const disconnectTimeoutMs = 200
const minRetryMs = 50
const maxRetryMs = 1000

function retryMs(): number {
  return minRetryMs + Math.random() * (maxRetryMs - minRetryMs)
}

/**
 * This server is not, or not any more, the one that takes our writes: a connection made anew asks who is. A master
 * without enough replicas may be a deposed one that nobody has told.
 */
const notTheMaster = /^(MOVED|ASK|READONLY|CLUSTERDOWN|MASTERDOWN|NOREPLICAS) /

/** How to reach who knows the master: a cluster's nodes as the master itself, Sentinels with a user of their own. */
function accessOf(
  config: RedisConfig,
  {
    target,
    tls,
  }: { readonly target: RedisTarget; readonly tls: ReturnType<typeof tlsFiles> | undefined },
): FindMasterOptions['access'] {
  const [username, passwordFile] =
    target.kind === 'sentinel'
      ? [config.sentinelUsername, config.sentinelPasswordFile]
      : [config.username, config.passwordFile]
  const access = (): ReturnType<FindMasterOptions['access']> => {
    const password = readPassword(passwordFile)
    return {
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      ...(tls && { tls }),
    }
  }
  // A file that is not there is said at the start.
  access()
  return access
}

function readPassword(passwordFile: string | undefined): string | undefined {
  return passwordFile === undefined ? undefined : readFileSync(passwordFile, 'utf8').trim()
}

function tlsFiles({ caFile, certFile, keyFile }: RedisConfig) {
  return {
    ...(caFile !== undefined && { ca: readFileSync(caFile) }),
    ...(certFile !== undefined && { cert: readFileSync(certFile) }),
    ...(keyFile !== undefined && { key: readFileSync(keyFile) }),
  }
}
