import type { Redis } from 'ioredis'
import type { RedisConfig } from '../config/schema.ts'
import { recordKey, RevocationSet, RevocationSetFullError } from '../policy/revocation-set.ts'
import type { Clock, Revocation, RevocationView } from '../policy/types.ts'
import type { FeedStatus, RevocationFeed } from './feed.ts'
import { formatPosition, type Position } from './link-hash.ts'
import { describeFault, openRedis } from './redis-connection.ts'
import { redisKeys, type RedisKeys } from './redis-keys.ts'
import { followLinks, readHead, readLog, scanRecords } from './redis-log.ts'
import { parseMessage } from './revocation-record.ts'
import { ServerTime } from './server-time.ts'

export interface FeedLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export interface RedisFeedOptions {
  readonly redis: RedisConfig
  readonly trustDomain: string
  /** How often the view proves that it is complete, milliseconds; jittered by 15 %. */
  readonly syncIntervalMs: number
  readonly clock: Clock
  readonly log: FeedLog
}

/**
 * Follows the revocations in Redis. Messages bring a record within a round trip; only a sync proves that none is
 * missing. Records leave by their own expiry alone: a store that is emptied, restored or forged un-revokes nothing.
 * Throws when a TLS or password file cannot be read.
 */
export function createRedisFeed(options: RedisFeedOptions): RevocationFeed {
  return new RedisFeed(options)
}

/** A sync that completed with nothing missing. */
interface Proof {
  readonly position: Position
  /** When its last question was sent, monotonic milliseconds: what came later may be missing. */
  readonly sentAtMs: number
}

class RedisFeed implements RevocationFeed {
  readonly view: RevocationView
  readonly #options: RedisFeedOptions
  readonly #redis: Redis
  readonly #keys: RedisKeys
  readonly #set = new RevocationSet()
  readonly #serverTime = new ServerTime()
  readonly #listeners: ((records: readonly Revocation[]) => void)[] = []
  readonly #ready = Promise.withResolvers<void>()
  readonly #counts = { gaps: 0, scans: 0, malformed: 0, liftsIgnored: 0 }
  /** Keys of records that the store once had and has no more. */
  #missing = new Set<string>()
  #proof: Proof | undefined
  /** Counts connections, so that what was asked on one is never proven by another. */
  #connection = 0
  #subscribedOn = -1
  /** False: the next sync reads every record, because the log does not lead on from what we know. */
  #canFollow = false
  /** The highest position that a message named since the last scan. */
  #heardUpTo = 0
  #overflowed = false
  #leapt = false
  #troubled = false
  #closed = false
  #loop: Promise<void> | undefined
  #wake: () => void = () => undefined

  constructor(options: RedisFeedOptions) {
    this.#options = options
    this.#keys = redisKeys(options)
    this.#redis = openRedis(options.redis)
    this.#redis.on('ready', () => this.#wake())
    this.#redis.on('close', () => void this.#connection++)
    this.#redis.on('error', (error) => this.#complain(error))
    this.#redis.on('message', (_channel, payload) => this.#hear(payload))
    // Age is worked out when it is asked for: a process that slept must not wake up believing that it is fresh.
    const ageMs = (monotonicMs: number): number => this.#ageMs(monotonicMs)
    const epoch = (): string => (this.#proof ? formatPosition(this.#proof.position) : '-')
    const find: RevocationView['find'] = (subjects) => this.#set.find(subjects)
    this.view = {
      get epoch() {
        return epoch()
      },
      ageMs,
      find,
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

  status(): FeedStatus {
    return {
      source: 'redis',
      connected: this.#isConnected(),
      epoch: this.view.epoch,
      ageMs: this.#ageMs(this.#options.clock.monotonic()),
      records: this.#set.size,
      ...this.#counts,
      missingInStore: this.#missing.size,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    this.#redis.disconnect()
    this.#wake()
    await this.#loop
  }

  async #run(): Promise<void> {
    // Its outcome comes as `ready`, or as another attempt.
    this.#redis.connect().catch(() => undefined)
    while (!this.#closed) {
      if (this.#redis.status === 'ready') await this.#beat()
      if (!this.#closed) await this.#pause()
    }
  }

  async #pause(): Promise<void> {
    const jitter = 0.85 + Math.random() * 0.3
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, this.#options.syncIntervalMs * jitter)
    this.#wake = resolve
    await promise
    clearTimeout(timer)
  }

  async #beat(): Promise<void> {
    const connection = this.#connection
    try {
      // Subscribe first: a record between a sync and a later subscription would be heard by neither.
      if (this.#subscribedOn !== connection) {
        await this.#redis.subscribe(this.#keys.channel)
        this.#subscribedOn = connection
      }
      const proof = await this.#sync()
      if (proof && this.#connection === connection) this.#prove(proof)
    } catch (error) {
      this.#complain(error)
    }
  }

  async #sync(): Promise<Proof | undefined> {
    if (this.#canFollow && this.#proof) {
      const before = this.#set.size
      const heardUpTo = this.#heardUpTo
      const proof = await this.#follow(this.#proof.position)
      // The push of a commit comes before the answer that shows it: what is new now was lost on the way.
      if (!proof || this.#set.size > before) this.#counts.gaps++
      // A head behind what was heard before we asked: the store lost its tail, and a scan tells what.
      if (proof && proof.position.n >= heardUpTo) return proof
    }
    return this.#scan()
  }

  /** Reads the log from a position to the head. Undefined when the log does not lead there. */
  async #follow(from: Position, unproven = this.#missing): Promise<Proof | undefined> {
    let at = from
    for (let page = 0; page < maxPagesPerSync; page++) {
      const sentAtMs = this.#options.clock.monotonic()
      const { head, entries, serverMs } = await readLog(this.#redis, {
        keys: this.#keys,
        after: at,
      })
      this.#learnTime(serverMs)
      const records = entries.map(({ record }) => record)
      this.#applyFromStore(records, unproven)
      const next = followLinks(at, entries)
      if (!next) return undefined
      at = next
      // A page is progress, not freshness: only the head is.
      if (at.n === head.n && at.h === head.h) return { position: at, sentAtMs }
      if (entries.length === 0) return undefined
    }
    return undefined
  }

  /** Merges every record of the store, then what was committed while it read. Nothing that is held is dropped. */
  async #scan(): Promise<Proof | undefined> {
    this.#canFollow = false
    this.#heardUpTo = 0
    this.#counts.scans++
    const unproven = new Set(this.#set.records().filter(isDurable).map(recordKey))
    const start = await readHead(this.#redis, this.#keys)
    for await (const records of scanRecords(this.#redis, this.#keys)) {
      this.#applyFromStore(records, unproven)
    }
    const proof = await this.#follow(start, unproven)
    if (!proof) return undefined
    if (unproven.size > 0) {
      this.#options.log.error(
        { missing: unproven.size, epoch: formatPosition(proof.position) },
        'Redis lost revocations: they stay in force here; commit them again',
      )
    }
    this.#missing = unproven
    return proof
  }

  #prove(proof: Proof): void {
    this.#proof = proof
    this.#canFollow = true
    if (this.#troubled) this.#options.log.info({}, 'The revocation view is complete again')
    this.#troubled = false
    const serverMs = this.#serverTime.now(this.#options.clock.monotonic())
    const expired = serverMs === undefined ? [] : this.#set.expire(serverMs)
    for (const record of expired) this.#missing.delete(recordKey(record))
    this.#ready.resolve()
  }

  #hear(payload: string): void {
    const message = parseMessage(payload, this.#options.clock.now())
    if (message.kind === 'record') {
      this.#heardUpTo = Math.max(this.#heardUpTo, message.record.epoch ?? 0)
      return this.#apply([message.record])
    }
    if (message.kind === 'lift') this.#counts.liftsIgnored++
    else this.#counts.malformed++
    const count = this.#counts.liftsIgnored + this.#counts.malformed
    if (count % warnEvery !== 1) return
    this.#options.log.warn(
      { malformed: this.#counts.malformed, liftsIgnored: this.#counts.liftsIgnored },
      'Ignored a message on the revocation channel',
    )
  }

  #applyFromStore(records: readonly Revocation[], unproven: Set<string>): void {
    for (const record of records) unproven.delete(recordKey(record))
    this.#apply(records)
  }

  #apply(records: readonly Revocation[]): void {
    const serverMs = this.#serverTime.now(this.#options.clock.monotonic()) ?? 0
    const inForce = records.filter(({ expiresAtMs: at }) => at === 0 || at > serverMs)
    const added: Revocation[] = []
    try {
      for (const record of inForce) if (this.#set.add(record)) added.push(record)
    } catch (error) {
      if (!(error instanceof RevocationSetFullError)) throw error
      // What does not fit may be in force: no view of ours is complete from here on.
      if (!this.#overflowed) this.#options.log.error(describeFault(error), 'Refusing all traffic')
      this.#overflowed = true
    }
    if (added.length === 0) return
    for (const listener of this.#listeners) listener(added)
  }

  #learnTime(serverMs: number): void {
    const followed = this.#serverTime.learn(serverMs, this.#options.clock.monotonic())
    if (!followed && !this.#leapt) {
      this.#options.log.error({ serverMs }, "Redis's clock leapt ahead: records expire by ours")
    }
    this.#leapt = !followed
  }

  #ageMs(monotonicMs: number): number {
    if (!this.#proof || this.#overflowed || this.#closed) return Infinity
    return Math.max(0, monotonicMs - this.#proof.sentAtMs)
  }

  #isConnected(): boolean {
    return this.#redis.status === 'ready' && this.#subscribedOn === this.#connection
  }

  /** Says once that the view is losing its freshness; says no more until it is complete again. */
  #complain(error: unknown): void {
    if (this.#troubled || this.#closed) return
    this.#troubled = true
    this.#options.log.warn(describeFault(error), 'Cannot follow the revocations in Redis')
  }
}

function isDurable(record: Revocation): boolean {
  return record.epoch !== undefined
}

const maxPagesPerSync = 200
/** A storm of bad messages must not become a storm of log lines. */
const warnEvery = 1000
