import { IdSet } from '../policy/id-set.ts'
import type { Lift } from '../policy/lift.ts'
import {
  isDurable,
  recordKey,
  RevocationSet,
  RevocationSetFullError,
} from '../policy/revocation-set.ts'
import type { Revocation } from '../policy/types.ts'
import type { Assertion } from './assertion.ts'
import type { Position } from './link-hash.ts'
import { followLinks, type LogPage } from './redis-log.ts'
import {
  liftKey,
  proves,
  type Advance,
  type Missing,
  type Sync,
  type Unproven,
} from './unproven.ts'

/** A sync that completed with nothing missing. */
export interface Proof {
  readonly position: Position
  /** When its last question was sent, monotonic milliseconds: what came later may be missing. */
  readonly sentAtMs: number
}

/**
 * What a sidecar knows, as a function of what it was told: the join of records and lifts, and the proof that nothing is
 * missing. No I/O and no clock, so that every order of events can be explored. Methods return the records that came
 * into force by the call.
 */
export class Replica {
  readonly #set: RevocationSet
  readonly #lifts = new Map<string, Lift>()
  readonly #liftedAt = new Map<string, number>()
  readonly #assertions = new Map<string, Assertion>()
  /** Brought by a message or given back, and not read from the store since the last scan began. */
  readonly #heard = new Set<string>()
  #missing: Unproven = { records: new IdSet(), lifts: new Map() }
  /** Of the last scan that began: when it proves the view, it is what is missing. */
  #scanned: Unproven = this.#missing
  #proof: Proof | undefined
  #canFollow = false
  #ticks = 0
  #revision = 0
  #found = 0
  #overflowed = false

  constructor(options: { readonly maxRecords?: number } = {}) {
    this.#set = new RevocationSet(options)
  }

  get proof(): Proof | undefined {
    return this.#proof
  }
  /** Records in force. */
  get size(): number {
    return this.#set.size
  }
  /** Something did not fit and may be in force: no view is complete from then on. */
  get overflowed(): boolean {
    return this.#overflowed
  }
  /** Grows with everything that is learnt or forgotten. */
  get revision(): number {
    return this.#revision
  }
  /** Counts the records that were in the store and were new here: no message had brought them. */
  get found(): number {
    return this.#found
  }
  get missing(): Iterable<Missing> & { readonly size: number } {
    const { records, lifts } = this.#missing
    const list = (): Iterator<Missing> => this.list(this.#missing)
    return { size: records.size + lifts.size, [Symbol.iterator]: list }
  }

  find(subjects: readonly string[]): Revocation | undefined {
    return this.#set.find(subjects)
  }

  /** A message: it bites at once, whatever came before it, and proves nothing. */
  hear(record: Revocation, serverMs: number): readonly Revocation[] {
    if (record.epoch === undefined) return this.#assert(record, undefined)
    if (!this.#set.has(record)) this.#heard.add(recordKey(record))
    return this.#apply([record], serverMs)
  }

  /** What an earlier run of this sidecar knew. A position of then proves nothing now. */
  restore(records: readonly Revocation[]): readonly Revocation[] {
    return records.flatMap((record) =>
      isDurable(record) ? this.#apply([record], 0) : this.#assert(record, undefined),
    )
  }

  /** Members of the set of subjects, read together with the head at `position`. */
  seeInSet(records: readonly Revocation[], position: number): readonly Revocation[] {
    return records.flatMap((record) => this.#assert(record, position))
  }

  /** A lift whose signature was verified. Over the bound it is not taken, and what it names stays in force. */
  lift(lift: Lift): void {
    if (this.#lifts.has(lift.rid) || this.#lifts.size >= maxLifts) return
    this.#lifts.set(lift.rid, lift)
    this.#heard.add(liftKey(lift))
    this.#revision++
    for (const rid of lift.lifts) {
      if (this.#set.lift(rid)) this.#liftedAt.set(rid, ++this.#ticks)
    }
  }

  /** Undefined: the log does not lead on from what is known, and only a scan tells. */
  beginFollow(): Sync | undefined {
    if (!this.#canFollow || !this.#proof) return undefined
    const at = this.#proof.position
    const heard = [...this.#heard]
    return { kind: 'follow', at, unproven: this.#missing, heard }
  }

  /** After `mistrust()`. `head` must be read before the first page of the scan. */
  beginScan(head: Position): Sync {
    const unproven = { records: this.#set.durable(), lifts: new Map(this.#lifts) }
    this.#heard.clear()
    this.#scanned = unproven
    return { kind: 'scan', at: head, unproven, heard: [] }
  }

  /** Lifts first: a record that is lifted should not come back in force elsewhere. */
  *list({ lifts, records }: Unproven): Generator<Missing> {
    for (const lift of lifts.values()) yield { kind: 'lift', lift }
    for (const id of records) yield { kind: 'record', record: this.#set.get(id) }
  }

  readRecords(
    sync: Sync,
    { records, serverMs }: { readonly records: readonly Revocation[]; readonly serverMs: number },
  ): readonly Revocation[] {
    const applied = this.#apply(records, serverMs)
    for (const record of records) {
      if (this.#heard.size > 0) this.#heard.delete(recordKey(record))
      const id = this.#set.durableId(record)
      if (id === undefined) continue
      if (proves(sync)) sync.unproven.records.delete(id)
      else sync.unproven.records.add(id)
    }
    this.#found += applied.length
    return applied
  }

  /** A lift of the store whose signature was verified. */
  readLift(sync: Sync, lift: Lift): void {
    this.lift(lift)
    this.#heard.delete(liftKey(lift))
    if (proves(sync)) sync.unproven.lifts.delete(lift.rid)
    else sync.unproven.lifts.set(lift.rid, lift)
  }

  /** Where a page of the log leads, when each entry links to the one before; a page is progress, not freshness. */
  advance(sync: Sync, page: LogPage): Advance {
    const at = followLinks(sync.at, page.entries)
    if (!at) return { kind: 'broken' }
    if (at.n === page.head.n && at.h === page.head.h) return { kind: 'complete', at }
    return page.entries.length === 0 ? { kind: 'broken' } : { kind: 'more', sync: { ...sync, at } }
  }

  /** The sync has reached the head. False: messages told of more than the store has, so it lost some of it. */
  prove(sync: Sync, proof: Proof): boolean {
    // Every history leads on from the empty log: scan again, before what was just committed is taken for lost.
    if (sync.kind === 'scan' && sync.at.n === 0 && proof.position.n > 0) return false
    // A head as far as what was heard may be that of another history.
    if (sync.heard.some((key) => this.#heard.has(key))) return false
    if (sync.kind === 'scan') this.#missing = sync.unproven
    this.#proof = proof
    this.#canFollow = true
    return true
  }

  /** The log did not lead on: no position that is known is worth anything, and the next sync is a scan. */
  mistrust(): void {
    this.#canFollow = false
  }

  /** Drops what has expired on the store's clock, some thousands at most: the rest with the next call. */
  expire(serverMs: number): void {
    const expired = this.#set.expire(serverMs)
    if (expired.length === 0) return
    this.#revision++
    let liftEnded = false
    for (const { id, record } of expired) {
      this.#missing.records.delete(id)
      this.#scanned.records.delete(id)
      this.#heard.delete(recordKey(record))
      if (!this.#set.isLifted(record.rid) && this.#liftedAt.delete(record.rid)) liftEnded = true
    }
    if (liftEnded) this.#forgetLifts()
  }

  #forgetLifts(): void {
    for (const lift of this.#lifts.values()) {
      if (lift.lifts.some((rid) => this.#set.isLifted(rid))) continue
      this.#lifts.delete(lift.rid)
      this.#heard.delete(liftKey(lift))
      this.#missing.lifts.delete(lift.rid)
      this.#scanned.lifts.delete(lift.rid)
    }
  }

  /** Assertions that the store has to be asked to take over. */
  assertions(limit: number): readonly Assertion[] {
    const waiting: Assertion[] = []
    for (const assertion of this.#assertions.values()) {
      if (waiting.length >= limit) break
      if (assertion.rid === undefined) waiting.push(assertion)
    }
    return waiting
  }

  /** The store's answer: the record `rid` stands for the assertion. It ends here once that record is held. */
  absorbed(asked: Assertion, rid: string): void {
    const current = this.#assertions.get(asked.record.subject)
    if (current?.tick !== asked.tick) return
    // A record that was lifted before the assertion was heard cannot stand for it, whatever the store says.
    if ((this.#liftedAt.get(rid) ?? Infinity) < current.tick) return
    this.#assertions.set(asked.record.subject, { ...current, rid })
    this.#settle(asked.record.subject)
  }

  /** The store said that it has it again. That counts once it is read: the store may have lost it once more since. */
  restored(missing: Missing): void {
    const { records, lifts } = this.#missing
    if (missing.kind === 'lift') {
      if (lifts.delete(missing.lift.rid)) this.#heard.add(liftKey(missing.lift))
      return
    }
    const id = this.#set.durableId(missing.record)
    if (id !== undefined && records.delete(id)) this.#heard.add(recordKey(missing.record))
  }

  /** At most `maxRecords`, about the last that were learnt. */
  snapshot({ maxRecords }: { readonly maxRecords?: number } = {}): {
    readonly records: readonly Revocation[]
    readonly lifts: readonly Lift[]
  } {
    return { records: this.#set.records(maxRecords), lifts: [...this.#lifts.values()] }
  }

  #assert(record: Revocation, seenAt: number | undefined): readonly Revocation[] {
    const held = this.#assertions.get(record.subject)
    // All traffic is refused from then on: a storm must not take the memory too.
    if (!held && this.#overflowed) return []
    const tick = ++this.#ticks
    const assertion = { record: held?.record ?? record, tick, seenAt, rid: undefined }
    this.#assertions.set(record.subject, assertion)
    if (held) return []
    const isNews = this.#set.find([record.subject])?.op !== record.op
    const added = this.#add([record])
    return isNews ? added : []
  }

  #apply(records: readonly Revocation[], serverMs: number): readonly Revocation[] {
    const added = this.#add(records.filter(({ expiresAtMs: at }) => at === 0 || at > serverMs))
    for (const { subject } of added) this.#settle(subject)
    return added.filter((record) => this.#set.isInForce(record))
  }

  #add(records: readonly Revocation[]): readonly Revocation[] {
    const added: Revocation[] = []
    try {
      for (const record of records) if (this.#set.add(record)) added.push(record)
    } catch (error) {
      if (!(error instanceof RevocationSetFullError)) throw error
      this.#overflowed = true
    }
    if (added.length > 0) this.#revision++
    return added
  }

  #settle(subject: string): void {
    const assertion = this.#assertions.get(subject)
    if (assertion?.rid === undefined) return
    const stands = this.#set
      .withRid(assertion.rid)
      .some((record) => record.subject === subject && record.expiresAtMs === 0)
    if (!stands) return
    this.#set.drop(assertion.record)
    this.#assertions.delete(subject)
    this.#revision++
  }
}

/** Signed lifts only, so an operator's own work is all that counts against it. */
const maxLifts = 100_000
