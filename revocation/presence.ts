import { hostname } from 'node:os'
import type { Redis } from 'ioredis'
import type { RedisConfig } from '../config/schema.ts'
import type { Clock } from '../policy/types.ts'
import {
  formatEnforced,
  formatLive,
  formatRow,
  type Enforced,
  type LiveTasks,
  type PresenceRow,
} from './presence-row.ts'
import { leavePresenceScript, writePresenceScript } from './presence-scripts.ts'
import { describeFault, openRedis } from './redis-connection.ts'
import { redisKeys, type RedisKeys } from './redis-keys.ts'
import { runScript } from './run-script.ts'
import { ServerTime } from './server-time.ts'

/** Tells operators that this sidecar is there, and which records it enforces. Traffic never waits for it. */
export interface Presence extends AsyncDisposable {
  /** Begins to write the row, every second. Returns at once; a store that does not answer is asked again. */
  start(source: PresenceSource): void
  /** Acknowledges records, within milliseconds, and at most 20 times a second: what comes faster goes together. */
  enforced(records: readonly Enforced[]): void
}

/** Where the row comes from: asked whenever it is written. */
export interface PresenceSource {
  readonly instance: string
  report(): Omit<PresenceRow, 'host' | 'enforcedAtMs' | 'cut'>
  /** At most 100 tasks, those with the most exchanges. */
  liveTasks(): LiveTasks
}

export interface PresenceOptions {
  readonly redis: RedisConfig
  readonly trustDomain: string
  readonly clock: Clock
  readonly log: { warn(fields: object, message: string): void }
}

/** A row that nobody wrote for this long is forgotten: longer than any bound at which a sidecar closes by itself. */
export const forgottenAfterMs = 360_000
/** After three beats without a row a sidecar is called silent. */
export const silentAfterMs = 3_000

/** Throws when a TLS or password file cannot be read. */
export function createPresence(options: PresenceOptions): Presence {
  return new RedisPresence(options)
}

const beatMs = 1_000
const minGapMs = 50
const maxPending = 64
const maxRows = 10_000
const leaveTimeoutMs = 500

class RedisPresence implements Presence {
  readonly #options: PresenceOptions
  readonly #keys: RedisKeys
  readonly #redis: Redis
  readonly #serverTime = new ServerTime()
  readonly #host = hostname()
  #source: PresenceSource | undefined
  #pending: readonly Enforced[] = []
  #enforcedAtMonotonicMs: number | undefined
  #cut = 0
  #liveWritten = ''
  /** There is something to write before the next beat. */
  #due = false
  #troubled = false
  #closed = false
  #loop: Promise<void> | undefined
  #wake: () => void = () => undefined

  constructor(options: PresenceOptions) {
    this.#options = options
    this.#keys = redisKeys(options)
    this.#redis = openRedis(options.redis)
    // A new connection may be a new, empty store: everything is said again.
    this.#redis.on('ready', () => {
      this.#liveWritten = ''
      this.#due = true
      this.#wake()
    })
    this.#redis.on('error', (error) => this.#complain(error))
  }

  start(source: PresenceSource): void {
    if (this.#closed) return
    this.#source = source
    this.#loop ??= this.#run(source)
  }

  enforced(records: readonly Enforced[]): void {
    for (const { cut } of records) this.#cut += cut
    this.#pending = [...this.#pending, ...records].slice(-maxPending)
    this.#enforcedAtMonotonicMs = this.#options.clock.monotonic()
    this.#due = true
    this.#wake()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    this.#wake()
    if (this.#redis.status === 'ready') await this.#leave()
    this.#redis.disconnect()
    await this.#loop
  }

  async #run(source: PresenceSource): Promise<void> {
    const { clock } = this.#options
    // Its outcome comes as `ready`, or as another attempt.
    this.#redis.connect().catch(() => undefined)
    let nextBeatMs = -Infinity
    while (!this.#closed) {
      const startedMs = clock.monotonic()
      const isBeat = startedMs >= nextBeatMs
      // Jitter, so that sidecars that started together do not write together for ever.
      if (isBeat) nextBeatMs = startedMs + beatMs * (0.85 + Math.random() * 0.3)
      const acknowledges = this.#pending.length > 0
      if (this.#redis.status === 'ready') await this.#write(source, { isBeat })
      // A beat must not make the acknowledgement that follows it late: only those are kept apart.
      if (acknowledges) await this.#pause(startedMs + minGapMs - clock.monotonic(), false)
      await this.#pause(nextBeatMs - clock.monotonic(), true)
    }
  }

  /** Ends early at disposal, and, when it `wakes`, as soon as something is due. */
  async #pause(ms: number, wakes: boolean): Promise<void> {
    if (this.#closed || ms <= 0 || (wakes && this.#due)) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, ms)
    this.#wake = () => {
      if (wakes || this.#closed) resolve()
    }
    await promise
    clearTimeout(timer)
  }

  async #write(source: PresenceSource, { isBeat }: { readonly isBeat: boolean }): Promise<void> {
    const acks = this.#pending
    this.#pending = []
    this.#due = false
    // Counting every exchange is for the beat: acknowledgements may come twenty times a second.
    const live = isBeat ? formatLive(source.liveTasks()) : this.#liveWritten
    const isNews = live !== this.#liveWritten
    const { sidecars, seen, live: liveKey, acks: acksKey } = this.#keys
    try {
      const reply = await runScript(this.#redis, writePresenceScript, {
        keys: [sidecars, seen, liveKey, acksKey],
        args: [
          source.instance,
          formatRow(this.#row(source.report())),
          isNews ? live : '',
          acks.length > 0 ? formatEnforced(acks) : '',
          forgottenAfterMs,
          maxRows,
        ],
      })
      this.#liveWritten = live
      this.#serverTime.learn(Number(reply), this.#options.clock.monotonic())
      this.#troubled = false
    } catch (error) {
      // It may have been written: an acknowledgement that stands there twice is one.
      this.#pending = [...acks, ...this.#pending].slice(-maxPending)
      this.#complain(error)
    }
  }

  #row(report: ReturnType<PresenceSource['report']>): PresenceRow {
    const enforcedAt = this.#enforcedAtMonotonicMs
    const serverMs = enforcedAt === undefined ? undefined : this.#serverTime.now(enforcedAt)
    return {
      ...report,
      host: this.#host,
      enforcedAtMs: Math.round(serverMs ?? 0),
      cut: this.#cut,
    }
  }

  /** An orderly end leaves no row that an operator would have to wonder about. */
  async #leave(): Promise<void> {
    if (!this.#source) return
    const { sidecars, seen, live } = this.#keys
    const keys = [sidecars, seen, live]
    const args = [this.#source.instance]
    const left = runScript(this.#redis, leavePresenceScript, { keys, args }).catch(() => undefined)
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, leaveTimeoutMs)
    await Promise.race([left, late])
    clearTimeout(timer)
  }

  /** Says once that operators cannot see this sidecar; says it again only after they could. */
  #complain(error: unknown): void {
    if (this.#troubled || this.#closed) return
    this.#troubled = true
    this.#options.log.warn(describeFault(error), 'Cannot tell operators what this sidecar enforces')
  }
}
