import { ExpiryHeap } from './expiry-heap.ts'
import { HashIndex, hashText } from './hash-index.ts'
import { IdSet } from './id-set.ts'
import { PackedRecords, type RecordKey } from './packed-records.ts'
import type { Revocation, RevocationOp } from './types.ts'

/** The set cannot hold one more record. Whoever feeds it must refuse traffic: what it drops may be in force. */
export class RevocationSetFullError extends Error {
  override readonly name = 'RevocationSetFullError'
  readonly code = 'ERR_REVOCATION_SET_FULL'
}

/**
 * The records that are held and the lifts that name them; what is in force is indexed by subject. Both only grow, by
 * union, until a record's own expiry: loss, repetition and reordering of what feeds it can delay a revocation or a
 * lift, never undo one.
 */
export class RevocationSet {
  readonly #records = new PackedRecords()
  readonly #byRid = new HashIndex()
  /** Records in force only. */
  readonly #bySubject = new HashIndex()
  /** A provisional record has no `rid` that a lift could mean. */
  readonly #durable = new IdSet()
  readonly #expiring = new ExpiryHeap((id) => this.#records.expiresAtMs(id))
  readonly #lifted = new Set<string>()
  /** What was found last on a list of subjects, which is built once per grant chain. */
  readonly #found = new WeakMap<readonly string[], Found>()
  readonly #maxRecords: number
  #inForce = 0
  /** Counts changes of what is in force: only while it stands still is a finding true. */
  #revision = 0

  constructor(options: { readonly maxRecords?: number } = {}) {
    this.#maxRecords = options.maxRecords ?? defaultMaxRecords
  }

  /** How many records are in force. */
  get size(): number {
    return this.#inForce
  }

  /** True when the record is new. Throws `RevocationSetFullError` at `maxRecords` (default 2,000,000) or 1 GiB. */
  add(record: Revocation): boolean {
    if (this.has(record)) return false
    if (this.#records.size >= this.#maxRecords || this.#records.bytes >= maxBytes) {
      throw new RevocationSetFullError(`Cannot hold more than ${this.#records.size} revocations`)
    }
    const id = this.#records.add(record)
    this.#byRid.add(id, hashText(record.rid))
    if (isDurable(record)) {
      this.#durable.add(id)
      if (record.expiresAtMs !== 0) this.#expiring.push(id)
    }
    if (this.#isLiftedRecord(record)) return true
    this.#bySubject.add(id, hashText(record.subject))
    this.#inForce++
    this.#revision++
    return true
  }

  /**
   * Ends every durable record of this `rid`, also one that comes later. False when it is lifted already, or when there
   * are too many lifts to hold one more: then its records stay in force.
   */
  lift(rid: string): boolean {
    if (this.#lifted.has(rid) || this.#lifted.size >= this.#maxRecords) return false
    for (const id of this.#idsWithRid(rid)) this.#unindex(id)
    this.#lifted.add(rid)
    return true
  }

  isLifted(rid: string): boolean {
    return this.#lifted.has(rid)
  }

  has(record: Revocation): boolean {
    return this.#idOf(record) !== undefined
  }

  /** The number under which a durable record is held until it expires; undefined when it is not. */
  durableId(record: Revocation): number | undefined {
    const id = this.#idOf(record)
    return id !== undefined && this.#durable.has(id) ? id : undefined
  }

  /** The record that is held under this number. */
  get(id: number): Revocation {
    return this.#records.get(id)
  }

  /** The numbers of all durable records. */
  durable(): IdSet {
    return this.#durable.copy()
  }

  isInForce(record: Revocation): boolean {
    return this.has(record) && !this.#isLiftedRecord(record)
  }

  /** Takes out a provisional record that a durable one stands for. */
  drop(provisional: Revocation): void {
    const id = this.#idOf(provisional)
    if (id !== undefined && !this.#durable.has(id)) this.#delete(id)
  }

  /** The durable records of this `rid`. */
  withRid(rid: string): readonly Revocation[] {
    return [...this.#idsWithRid(rid)].map((id) => this.#records.get(id))
  }

  /**
   * The strictest record on any of these subjects: `quarantine`, then `revoke`, then `pause`. Among equals, that of
   * the earliest subject in the list, and of one subject the one that was recorded first. A list is remembered with
   * what was found on it, so it must not change.
   */
  find(subjects: readonly string[]): Revocation | undefined {
    if (this.#inForce === 0) return undefined
    // A short list is made for one request: to remember it would cost more than to look it up.
    if (subjects.length < 3) return this.#seek(subjects, subjects.map(hashText))
    const known = this.#found.get(subjects)
    if (known?.revision === this.#revision) return known.record
    const hashes = known?.hashes ?? subjects.map(hashText)
    const record = this.#seek(subjects, hashes)
    this.#found.set(subjects, { hashes, revision: this.#revision, record })
    return record
  }

  /**
   * Drops and returns what has expired at `nowMs`, epoch milliseconds on the store's clock, at most 4096 at once: the
   * rest comes with the next call, because late is safe and a long pause is not. Cheap when nothing has. A provisional
   * record leaves by `drop()` alone.
   */
  expire(nowMs: number): readonly Expired[] {
    const expired: Expired[] = []
    while (expired.length < maxExpiredAtOnce) {
      const id = this.#expiring.popUntil(nowMs)
      if (id === undefined) break
      const record = this.#records.get(id)
      expired.push({ id, record })
      this.#delete(id)
      // A lift goes when the last record that it names here has expired, never before.
      if (this.#idsWithRid(record.rid).next().done === true) this.#lifted.delete(record.rid)
    }
    return expired
  }

  /** At most so many of the records that are held, lifted or not: about the last that were added. */
  records(limit: number = Infinity): readonly Revocation[] {
    return this.#records.newest(limit)
  }

  #seek(subjects: readonly string[], hashes: readonly number[]): Revocation | undefined {
    let strictest: number | undefined
    for (let at = 0; at < subjects.length; at++) {
      const id = this.#seekOn(subjects[at] ?? '', hashes[at] ?? 0)
      if (id === undefined) continue
      if (strictest === undefined || this.#strictness(id) > this.#strictness(strictest)) {
        strictest = id
      }
    }
    return strictest === undefined ? undefined : this.#records.get(strictest)
  }

  #seekOn(subject: string, hash: number): number | undefined {
    let found: number | undefined
    for (let id = this.#bySubject.first(hash); id !== undefined; id = this.#bySubject.after(id)) {
      if (!this.#records.hasSubject(id, subject)) continue
      if (found === undefined || this.#rank(id) > this.#rank(found)) found = id
    }
    return found
  }

  #strictness(id: number): number {
    return strictness[this.#records.op(id)]
  }

  /** By strictness, then the earliest; what has no place in the log yet comes last. */
  #rank(id: number): number {
    return this.#strictness(id) * 2 ** 49 - (this.#records.epoch(id) || 2 ** 48)
  }

  #idOf(record: RecordKey): number | undefined {
    const hash = hashText(record.rid)
    for (let id = this.#byRid.first(hash); id !== undefined; id = this.#byRid.after(id)) {
      if (this.#records.is(id, record)) return id
    }
    return undefined
  }

  *#idsWithRid(rid: string): Generator<number> {
    const hash = hashText(rid)
    for (let id = this.#byRid.first(hash); id !== undefined; id = this.#byRid.after(id)) {
      if (this.#durable.has(id) && this.#records.hasRid(id, rid)) yield id
    }
  }

  #isLiftedRecord(record: Revocation): boolean {
    return isDurable(record) && this.#lifted.has(record.rid)
  }

  #delete(id: number): void {
    this.#unindex(id)
    this.#byRid.delete(id)
    this.#durable.delete(id)
    this.#records.delete(id)
  }

  #unindex(id: number): void {
    if (!this.#bySubject.delete(id)) return
    this.#inForce--
    this.#revision++
  }
}

/** A record that is gone, and the number that it had. */
export interface Expired {
  readonly id: number
  readonly record: Revocation
}

interface Found {
  readonly hashes: readonly number[]
  readonly revision: number
  readonly record: Revocation | undefined
}

/** Recorded in the store, and not only heard. */
export function isDurable(record: Revocation): boolean {
  return record.epoch !== undefined
}

/**
 * What makes two records one. Not the `rid` alone: a forged message that takes the `rid` of a true record, with another
 * subject or a sooner expiry, would hide the true one.
 */
export function recordKey(record: RecordKey): string {
  return `${record.rid} ${record.op} ${record.expiresAtMs} ${record.subject}`
}

const defaultMaxRecords = 2_000_000
const maxBytes = 2 ** 30
const maxExpiredAtOnce = 4096

const strictness: Readonly<Record<RevocationOp, number>> = { pause: 1, revoke: 2, quarantine: 3 }
