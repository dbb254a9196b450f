import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import type { Lift } from '../policy/lift.ts'
import { parseSubject } from '../policy/subject.ts'
import type { Clock, Revocation } from '../policy/types.ts'
import type { FeedLog } from './feed-log.ts'
import type { LiftGate } from './lift-gate.ts'
import { formatPosition } from './link-hash.ts'
import type { RedisKeys } from './redis-keys.ts'
import {
  maxPageEntries,
  readHead,
  readLog,
  scanRecords,
  slicesOf,
  type LogPage,
} from './redis-log.ts'
import type { Proof, Replica } from './replica.ts'
import { provisional, type StoredItem } from './revocation-record.ts'
import { ServerTime } from './server-time.ts'
import type { Sync } from './unproven.ts'

interface RedisSyncOptions {
  readonly redis: Redis
  readonly keys: RedisKeys
  readonly replica: Replica
  readonly gate: LiftGate
  readonly clock: Clock
  readonly log: FeedLog
  /** Called in the tick in which records came into force. */
  readonly announce: (applied: readonly Revocation[]) => void
  /** Called in the tick in which a lift that was new here counted. */
  readonly lifted: (lift: Lift) => void
}

/** Reads the store into the replica, and proves by the head that nothing is missing. */
export class RedisSync {
  readonly #options: RedisSyncOptions
  readonly #serverTime = new ServerTime()
  #gaps = 0
  #scans = 0
  #leapt = false
  #hasUnreadable = false
  /** Entries per reply. A subscribed connection that is sent too much at once is closed by the server. */
  #count = maxPageEntries

  constructor(options: RedisSyncOptions) {
    this.#options = options
  }

  get counts(): { readonly gaps: number; readonly scans: number } {
    return { gaps: this.#gaps, scans: this.#scans }
  }

  /** Epoch milliseconds on the store's clock; 0 before the first answer: until then nothing has expired. */
  serverMs(): number {
    return this.#serverTime.now(this.#options.clock.monotonic()) ?? 0
  }

  /** True when the view is proven complete. What was asked on one connection is not proven by another. */
  async run(isSameConnection: () => boolean): Promise<boolean> {
    try {
      const isProven = await this.#read(isSameConnection)
      this.#count = Math.min(maxPageEntries, this.#count * 2)
      return isProven
    } catch (error) {
      this.#count = Math.max(minPageEntries, Math.floor(this.#count / 2))
      throw error
    }
  }

  async #read(isSameConnection: () => boolean): Promise<boolean> {
    const { replica } = this.#options
    const following = replica.beginFollow()
    if (following) {
      const before = replica.found
      const proof = await this.#follow(following)
      // The push of a commit comes before the answer that shows it: what is new now was lost on the way.
      if (!proof || replica.found > before) this.#gaps++
      if (!isSameConnection()) return false
      // A head behind what was heard before we asked: the store lost its tail, and a scan tells what.
      if (proof && replica.prove(following, proof)) return true
    }
    const [scan, proof] = await this.#scan()
    if (!proof || !isSameConnection() || !replica.prove(scan, proof)) return false
    this.#complainOfLoss(proof)
    return true
  }

  /** Reads the log from a position to the head. Undefined when the log does not lead there. */
  async #follow(from: Sync): Promise<Proof | undefined> {
    const { redis, keys, clock, replica } = this.#options
    let sync = from
    for (let entries = 0; entries < maxEntriesPerSync; entries += this.#count) {
      const sentAtMs = clock.monotonic()
      const read = await readLog(redis, { keys, after: sync.at, count: this.#count })
      this.#learnTime(read.serverMs)
      this.#seeInSet(read)
      const items = read.entries.map(({ item }) => item)
      await this.#readRecords(sync, items)
      await this.#readLifts(sync, items)
      const step = replica.advance(sync, read)
      if (step.kind === 'broken') return undefined
      if (step.kind === 'complete') return { position: step.at, sentAtMs }
      sync = step.sync
    }
    return undefined
  }

  /** Merges every record of the store, then what was committed while it read. Nothing that is held is dropped. */
  async #scan(): Promise<readonly [Sync, Proof | undefined]> {
    const { redis, keys, replica } = this.#options
    replica.mistrust()
    this.#scans++
    const scan = replica.beginScan(await readHead(redis, keys))
    for await (const items of scanRecords(redis, { keys, count: this.#count })) {
      // Lifts first: what was lifted long ago should not be announced as new. Until a scan ends, no view is fresh.
      await this.#readLifts(scan, items)
      await this.#readRecords(scan, items)
      await nextTurn()
    }
    return [scan, await this.#follow(scan)]
  }

  /** What fits into one slice is read at once. */
  async #readRecords(sync: Sync, items: readonly StoredItem[]): Promise<void> {
    const { replica, announce } = this.#options
    const records = items.flatMap((item) => (item.kind === 'record' ? [item.record] : []))
    let isFirst = true
    for (const slice of slicesOf(records)) {
      if (!isFirst) await nextTurn()
      isFirst = false
      announce(replica.readRecords(sync, { records: slice, serverMs: this.serverMs() }))
    }
  }

  async #readLifts(sync: Sync, items: readonly StoredItem[]): Promise<void> {
    const { replica, gate, lifted } = this.#options
    for (const item of items) {
      const lift = item.kind === 'lift' ? await gate.admit(item.lift) : undefined
      if (!lift) continue
      const before = replica.revision
      replica.readLift(sync, lift)
      if (replica.revision > before) lifted(lift)
    }
  }

  #seeInSet({ revoked, head, serverMs }: LogPage): void {
    const { replica, announce } = this.#options
    const records = revoked.flatMap((text) => {
      const subject = parseSubject(text)
      if (subject === undefined) return []
      const said = { reason: 'put into the set by hand', by: 'set', nowMs: serverMs } as const
      return [provisional(subject, said)]
    })
    announce(replica.seeInSet(records, head.n))
    const unreadable = revoked.length - records.length
    if (unreadable > 0 && !this.#hasUnreadable) {
      this.#options.log.error(
        { unreadable },
        'Members of the set in Redis name no subject: they deny nothing',
      )
    }
    this.#hasUnreadable = unreadable > 0
  }

  #complainOfLoss({ position }: Proof): void {
    const { replica, log } = this.#options
    const missing = replica.missing.size
    if (missing === 0) return
    log.error(
      { missing, epoch: formatPosition(position) },
      position.n === 0
        ? 'Redis lost revocations: it is empty. They stay in force here and are committed again'
        : 'Redis lost revocations: they stay in force here and are committed again',
    )
  }

  #learnTime(serverMs: number): void {
    const { clock, log } = this.#options
    const followed = this.#serverTime.learn(serverMs, clock.monotonic())
    if (!followed && !this.#leapt) {
      log.error({ serverMs }, "Redis's clock leapt ahead: records expire by ours")
    }
    this.#leapt = !followed
  }
}

/** Twice what the log holds. */
const maxEntriesPerSync = 200_000
const minPageEntries = 16
