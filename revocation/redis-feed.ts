import type { Redis } from 'ioredis'
import type { RedisConfig } from '../config/schema.ts'
import type { Lift } from '../policy/lift.ts'
import type { Clock, Revocation, RevocationView } from '../policy/types.ts'
import type { FeedLog } from './feed-log.ts'
import type { FeedStatus, RevocationFeed } from './feed.ts'
import { LiftGate, refuseLifts, type VerifyLift } from './lift-gate.ts'
import { formatPosition } from './link-hash.ts'
import { describeFault, openRedis } from './redis-connection.ts'
import { redisKeys, type RedisKeys } from './redis-keys.ts'
import { redisScripts } from './redis-scripts.ts'
import { RedisSync } from './redis-sync.ts'
import { RedisUpkeep } from './redis-upkeep.ts'
import { Replica } from './replica.ts'
import { parseMessage, type StoredLift } from './revocation-record.ts'
import { readSnapshotFile, SnapshotFile } from './snapshot-file.ts'

export type { FeedLog } from './feed-log.ts'

export interface RedisFeedOptions {
  readonly redis: RedisConfig
  readonly trustDomain: string
  /** How often the view proves that it is complete, milliseconds; jittered by 15 %. */
  readonly syncIntervalMs: number
  readonly clock: Clock
  readonly log: FeedLog
  /** Absent: nothing can be lifted before it expires. */
  readonly verifyLift?: VerifyLift
  /** Where what is known is kept for the next start. */
  readonly snapshotFile?: string
}

/**
 * Follows the revocations in Redis. Messages bring a record within a round trip; only a sync proves that none is
 * missing. Records leave by their own expiry or by a signed lift: a store that is emptied, restored or forged un-revokes
 * nothing, and is given back what it lost. Throws when a TLS or password file cannot be read.
 */
export function createRedisFeed(options: RedisFeedOptions): RevocationFeed {
  return new RedisFeed(options)
}

class RedisFeed implements RevocationFeed {
  readonly view: RevocationView
  readonly #options: RedisFeedOptions
  readonly #redis: Redis
  readonly #keys: RedisKeys
  readonly #replica = new Replica()
  readonly #sync: RedisSync
  readonly #upkeep: RedisUpkeep
  readonly #gate: LiftGate
  readonly #file: SnapshotFile | undefined
  readonly #listeners: ((records: readonly Revocation[]) => void)[] = []
  readonly #liftListeners: ((lift: Lift) => void)[] = []
  readonly #ready = Promise.withResolvers<void>()
  /** Counts connections, so that what was asked on one is never proven by another. */
  #connection = 0
  #subscribedOn = -1
  #savedRevision = 0
  #malformed = 0
  #full = false
  #troubled = false
  #closed = false
  #loop: Promise<void> | undefined
  #wake: () => void = () => undefined
  #alarm: NodeJS.Timeout | undefined

  constructor(options: RedisFeedOptions) {
    const { log, clock, snapshotFile: path, trustDomain } = options
    this.#options = options
    this.#keys = redisKeys(options)
    this.#redis = openRedis(options.redis)
    this.#gate = new LiftGate({ verify: options.verifyLift ?? refuseLifts, log })
    const replica = this.#replica
    const scripts = redisScripts(this.#redis, this.#keys)
    this.#sync = new RedisSync({
      redis: this.#redis,
      keys: this.#keys,
      replica,
      gate: this.#gate,
      clock,
      log,
      announce: (applied) => this.#announce(applied),
      lifted: (lift) => this.#lifted(lift),
    })
    this.#upkeep = new RedisUpkeep({ replica, scripts, clock, log })
    if (path !== undefined) {
      this.#file = new SnapshotFile({
        path,
        trustDomain,
        log,
        read: (limits) => replica.snapshot(limits),
      })
    }
    this.#redis.on('ready', () => this.#wake())
    this.#redis.on('close', () => void this.#connection++)
    this.#redis.on('error', (error) => this.#complain(error))
    this.#redis.on('message', (_channel, payload) => this.#hear(payload))
    // Age is worked out when it is asked for: a process that slept must not wake up believing that it is fresh.
    const ageMs = (monotonicMs: number): number => this.#ageMs(monotonicMs)
    this.view = {
      get epoch() {
        return replica.proof ? formatPosition(replica.proof.position) : '-'
      },
      ageMs,
      find: (subjects) => replica.find(subjects),
    }
  }

  get ready(): Promise<void> {
    return this.#ready.promise
  }

  start(): void {
    if (this.#closed) return
    this.#loop ??= this.#run()
  }

  onApplied(listener: (records: readonly Revocation[]) => void): void {
    this.#listeners.push(listener)
  }

  onLifted(listener: (lift: Lift) => void): void {
    this.#liftListeners.push(listener)
  }

  status(): FeedStatus {
    return {
      source: 'redis',
      connected: this.#redis.status === 'ready' && this.#subscribedOn === this.#connection,
      epoch: this.view.epoch,
      ageMs: this.#ageMs(this.#options.clock.monotonic()),
      records: this.#replica.size,
      ...this.#sync.counts,
      malformed: this.#malformed,
      liftsIgnored: this.#gate.ignored,
      missingInStore: this.#replica.missing.size,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#alarm)
    this.#redis.disconnect()
    this.#wake()
    await this.#loop
    await this.#file?.[Symbol.asyncDispose]()
  }

  async #run(): Promise<void> {
    await this.#load()
    // Its outcome comes as `ready`, or as another attempt.
    if (!this.#closed) this.#redis.connect().catch(() => undefined)
    while (!this.#closed) {
      if (this.#redis.status === 'ready') await this.#beat()
      if (!this.#closed) await this.#pause()
    }
  }

  /** What was known before the last end is in force before anything is asked; only Redis makes the view fresh. */
  async #load(): Promise<void> {
    const { snapshotFile: path, trustDomain, log } = this.#options
    if (path === undefined) return
    const { records, lifts } = readSnapshotFile({ path, trustDomain, log })
    for (const compact of lifts) {
      const lift = await this.#gate.admit({ compact })
      if (lift) this.#lift(lift)
    }
    this.#announce(this.#replica.restore(records))
  }

  async #pause(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const jitter = 0.85 + Math.random() * 0.3
    const ms = this.#options.syncIntervalMs * jitter
    const timer = setTimeout(resolve, this.#upkeep.isDue ? Math.min(ms, upkeepPauseMs()) : ms)
    this.#wake = resolve
    await promise
    clearTimeout(timer)
  }

  #wakeSoon(): void {
    this.#alarm ??= setTimeout(() => {
      this.#alarm = undefined
      this.#wake()
    }, upkeepPauseMs())
  }

  async #beat(): Promise<void> {
    const connection = this.#connection
    try {
      // Subscribe first: a record between a sync and a later subscription would be heard by neither.
      if (this.#subscribedOn !== connection) {
        await this.#redis.subscribe(this.#keys.channel)
        this.#subscribedOn = connection
      }
      if (!(await this.#sync.run(() => this.#connection === connection))) return
      this.#proven()
      await this.#upkeep.run()
    } catch (error) {
      this.#complain(error)
    }
  }

  #proven(): void {
    if (this.#troubled) this.#options.log.info({}, 'The revocation view is complete again')
    this.#troubled = false
    this.#replica.expire(this.#sync.serverMs())
    this.#save()
    this.#ready.resolve()
  }

  #hear(payload: string): void {
    const message = parseMessage(payload, this.#options.clock.now())
    switch (message.kind) {
      case 'record':
        this.#announce(this.#replica.hear(message.record, this.#sync.serverMs()))
        if (message.record.epoch === undefined) this.#wakeSoon()
        return
      case 'lift':
        void this.#hearLift(message.lift)
        return
      case 'unsigned-lift':
        this.#gate.refuseUnsigned()
        return
      case 'malformed':
        this.#malformed++
        if (this.#malformed % warnEvery !== 1) return
        this.#options.log.warn(
          { malformed: this.#malformed },
          'Ignored a message on the revocation channel',
        )
    }
  }

  async #hearLift(stored: StoredLift): Promise<void> {
    const lift = await this.#gate.admitHeard(stored)
    if (!lift) return
    this.#lift(lift)
    this.#save()
  }

  #lift(lift: Lift): void {
    const before = this.#replica.revision
    this.#replica.lift(lift)
    if (this.#replica.revision > before) this.#lifted(lift)
  }

  #lifted(lift: Lift): void {
    for (const listener of this.#liftListeners) listener(lift)
  }

  #announce(applied: readonly Revocation[]): void {
    if (this.#replica.overflowed && !this.#full) {
      this.#full = true
      this.#options.log.error({}, 'Refusing all traffic: there are more revocations than fit')
    }
    this.#save()
    if (applied.length === 0) return
    for (const listener of this.#listeners) listener(applied)
  }

  #save(): void {
    const { revision } = this.#replica
    if (revision === this.#savedRevision) return
    this.#savedRevision = revision
    this.#file?.changed()
  }

  #ageMs(monotonicMs: number): number {
    const { proof, overflowed } = this.#replica
    if (!proof || overflowed || this.#closed) return Infinity
    return Math.max(0, monotonicMs - proof.sentAtMs)
  }

  /** Says once that the view is losing its freshness; says no more until it is complete again. */
  #complain(error: unknown): void {
    if (this.#troubled || this.#closed) return
    this.#troubled = true
    this.#options.log.warn(describeFault(error), 'Cannot follow the revocations in Redis')
  }
}

/** A storm of bad messages must not become a storm of log lines. */
const warnEvery = 1000
/** Apart by chance, so that one of many sidecars is first and the others find it done. */
function upkeepPauseMs(): number {
  return 20 + Math.random() * 60
}
