import { Redis, type RedisOptions } from 'ioredis'
import * as v from 'valibot'
import type { RedisAddress, RedisTarget } from '../config/redis-url.ts'
import { RevocationStoreError } from './revocation-record.ts'

export interface FindMasterOptions {
  readonly target: Exclude<RedisTarget, { readonly kind: 'server' }>
  /** Of the keys: on a cluster it is what their slot is worked out from. */
  readonly prefix: string
  /** How to reach who is asked. Read for every question: a password may have been replaced. */
  readonly access: () => Pick<RedisOptions, 'username' | 'password' | 'tls'>
}

/**
 * Asks the Sentinels, or the nodes of a cluster, for the server that takes our writes by now. Each question begins with
 * another host: one that was cut off with a deposed master would name that one for ever. It rejects when no host
 * knows, after at most two seconds for each, with `RevocationStoreError`.
 */
export function masterFinder(
  options: FindMasterOptions,
): (signal: AbortSignal) => Promise<RedisAddress> {
  const { hosts } = options.target
  let first = Math.floor(Math.random() * hosts.length)
  return async (signal) => {
    const order = [...hosts.slice(first), ...hosts.slice(0, first)]
    first = (first + 1) % hosts.length
    const faults: string[] = []
    for (const host of order) {
      try {
        return await askHost(host, { ...options, signal })
      } catch (error) {
        signal.throwIfAborted()
        const why = error instanceof Error ? error.message : 'unknown'
        faults.push(`${host.host}:${host.port} ${why}`)
      }
    }
    throw new RevocationStoreError(
      'ERR_REVOCATION_STORE_UNAVAILABLE',
      `Cannot find the master: ${faults.join('; ')}`,
    )
  }
}

const timeoutMs = 1000

async function askHost(
  address: RedisAddress,
  { target, prefix, access, signal }: FindMasterOptions & { readonly signal: AbortSignal },
): Promise<RedisAddress> {
  const client = new Redis({
    ...address,
    ...access(),
    // Sentinels before 6.2 do not know HELLO.
    protocol: 2,
    lazyConnect: true,
    enableOfflineQueue: false,
    enableReadyCheck: false,
    disableClientInfo: true,
    connectTimeout: timeoutMs,
    commandTimeout: timeoutMs,
    disconnectTimeout: 200,
    retryStrategy: null,
  })
  const stop = (): void => client.disconnect()
  signal.addEventListener('abort', stop, { once: true })
  // What `connect()` rejects with says only that there is no connection.
  let fault: Error | undefined
  client.on('error', (error) => {
    fault = error
  })
  try {
    await client.connect()
    return target.kind === 'sentinel'
      ? await askSentinel(client, target.master)
      : await askNode(client, { address, prefix })
  } catch (error) {
    throw fault ?? error
  } finally {
    signal.removeEventListener('abort', stop)
    stop()
  }
}

async function askSentinel(client: Redis, master: string): Promise<RedisAddress> {
  const reply = await client.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', master)
  if (reply === null) throw new Error(`knows no master "${master}"`)
  const [host, port] = v.parse(v.tuple([v.string(), v.string()]), reply)
  return { host, port: Number(port) }
}

/** All our keys are in one slot: the owner of one key owns the rest, and another node names the owner. */
async function askNode(
  client: Redis,
  { address, prefix }: { readonly address: RedisAddress; readonly prefix: string },
): Promise<RedisAddress> {
  try {
    await client.get(`{${prefix}}:owner`)
    return address
  } catch (error) {
    const moved = error instanceof Error && /^MOVED \d+ (.*):(\d+)$/.exec(error.message)
    if (!moved) throw error
    const [, host = '', port] = moved
    // A node that does not know the name of the owner means the name that it was asked by.
    return { host: /^\??$/.test(host) ? address.host : host, port: Number(port) }
  }
}
