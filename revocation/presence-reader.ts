import type { Redis } from 'ioredis'
import * as v from 'valibot'
import type { RedisConfig } from '../config/schema.ts'
import { parsePosition } from './link-hash.ts'
import { forgottenAfterMs, silentAfterMs } from './presence.ts'
import { readPresenceScript } from './presence-scripts.ts'
import {
  parseEnforced,
  parseLive,
  parseRow,
  type Enforced,
  type LiveTasks,
  type PresenceRow,
} from './presence-row.ts'
import { describeFault, openRedis, untilReady } from './redis-connection.ts'
import { redisKeys } from './redis-keys.ts'
import { RevocationStoreError } from './revocation-record.ts'
import { runScript } from './run-script.ts'

/** What operators see of the sidecars. All methods reject with `RevocationStoreError` when the store does not answer. */
export interface PresenceReader extends AsyncDisposable {
  read(options?: { readonly liveTasks?: boolean }): Promise<Population>
  /** Acknowledgements from this instant of the server on, at most 10,000 writes, the earliest first. */
  acknowledgements(sinceMs: number): Promise<readonly Acknowledgement[]>
  /** The link of the log entry at this place; undefined when the log does not have it. */
  linkAt(n: number): Promise<string | undefined>
}

/** Every registered sidecar, at one instant. */
export interface Population {
  /** Epoch milliseconds of the server. */
  readonly nowMs: number
  /** `n:h` of the store; `0:0` when nothing was ever committed. */
  readonly head: string
  readonly records: number
  readonly sidecars: readonly RegisteredSidecar[]
}

export interface RegisteredSidecar {
  readonly instance: string
  readonly seenMs: number
  /** It has missed three beats. */
  readonly silent: boolean
  /** Undefined when what stands there is not a row. */
  readonly row: PresenceRow | undefined
  readonly live: LiveTasks
}

export interface Acknowledgement extends Enforced {
  readonly instance: string
}

/** Throws when a TLS or password file cannot be read. */
export function createPresenceReader(options: {
  readonly redis: RedisConfig
  readonly trustDomain: string
}): PresenceReader {
  const { sidecars, seen, live, head, records, log, acks } = redisKeys(options)
  const redis = openRedis(options.redis, { commandTimeoutMs })
  // Every fault rejects the command that it hits; without a listener it would be printed too.
  redis.on('error', () => undefined)
  return {
    read: ({ liveTasks = false } = {}) =>
      attempt(redis, async () => {
        const keys = [sidecars, seen, live, head, records]
        const args = [forgottenAfterMs, liveTasks ? 1 : 0]
        return toPopulation(await runScript(redis, readPresenceScript, { keys, args }))
      }),
    acknowledgements: (sinceMs) =>
      attempt(redis, async () => {
        const entries = await redis.xrange(acks, `${sinceMs}-0`, '+', 'COUNT', maxAcks)
        return entries.flatMap(([, [, instance = '', , text = '']]) =>
          parseEnforced(text).map((enforced) => ({ ...enforced, instance })),
        )
      }),
    linkAt: (n) =>
      attempt(redis, async () => {
        const [entry] = await redis.xrange(log, `${n}-0`, `${n}-0`)
        const [, , , link] = entry?.[1] ?? []
        return link
      }),
    async [Symbol.asyncDispose]() {
      redis.disconnect()
    },
  }
}

const commandTimeoutMs = 3_000
const readyTimeoutMs = 5_000
const maxAcks = 10_000
/** After a sidecar has closed by itself, its row is shown this long: a pod that died must not alarm for ever. */
const shownAfterClosedMs = 60_000

const replySchema = v.tupleWithRest([numeral(), v.string(), numeral()], v.string())

function toPopulation(reply: unknown): Population {
  const read = v.safeParse(replySchema, reply)
  if (!read.success) {
    throw new RevocationStoreError(
      'ERR_REVOCATION_STORE_REPLY',
      'Cannot read the sidecars in Redis',
    )
  }
  const [nowText, head, records, ...rest] = read.output
  const nowMs = Number(nowText)
  const sidecars: RegisteredSidecar[] = []
  for (let at = 0; at < rest.length; at += 4) {
    const [instance = '', seen = '', row = '', live = ''] = rest.slice(at, at + 4)
    const sidecar = toSidecar({ instance, seenMs: Number(seen), row, live }, nowMs)
    if (!isForgotten(sidecar, nowMs)) sidecars.push(sidecar)
  }
  return {
    nowMs,
    head: parsePosition(head) ? head : '0:0',
    records: Number(records),
    sidecars,
  }
}

function toSidecar(
  found: {
    readonly instance: string
    readonly seenMs: number
    readonly row: string
    readonly live: string
  },
  nowMs: number,
): RegisteredSidecar {
  return {
    instance: found.instance,
    seenMs: found.seenMs,
    silent: nowMs - found.seenMs > silentAfterMs,
    row: parseRow(found.row),
    live: parseLive(found.live),
  }
}

function isForgotten({ row, seenMs }: RegisteredSidecar, nowMs: number): boolean {
  const boundMs = Math.max(row?.staleAfterReadsMs ?? 0, row?.staleAfterStreamsMs ?? 0)
  return nowMs - seenMs > boundMs + shownAfterClosedMs
}

async function attempt<T>(redis: Redis, ask: () => Promise<T>): Promise<T> {
  await untilReady(redis, readyTimeoutMs)
  try {
    return await ask()
  } catch (error) {
    if (error instanceof RevocationStoreError) throw error
    // The client's error carries the whole command: only its kind goes on.
    const { code } = describeFault(error)
    throw new RevocationStoreError(
      'ERR_REVOCATION_STORE_UNAVAILABLE',
      `Redis did not say which sidecars there are (${code})`,
    )
  }
}

function numeral() {
  return v.pipe(v.string(), v.regex(/^\d{1,16}$/))
}
