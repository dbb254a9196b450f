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
  readonly #byKey = new Map<string, Revocation>()
  /** Durable records only: a provisional one has no `rid` that a lift could mean. */
  readonly #byRid = new Map<string, Set<Revocation>>()
  /** Records in force only. */
  readonly #bySubject = new Map<string, Set<Revocation>>()
  readonly #lifted = new Set<string>()
  readonly #maxRecords: number
  #inForce = 0
  #nextExpiryMs = Infinity

  constructor(options: { readonly maxRecords?: number } = {}) {
    this.#maxRecords = options.maxRecords ?? defaultMaxRecords
  }

  /** How many records are in force. */
  get size(): number {
    return this.#inForce
  }

  /** True when the record is new. Throws `RevocationSetFullError` at `maxRecords` (default 500,000). */
  add(record: Revocation): boolean {
    const key = recordKey(record)
    if (this.#byKey.has(key)) return false
    if (this.#byKey.size >= this.#maxRecords) {
      throw new RevocationSetFullError(`Cannot hold more than ${this.#maxRecords} revocations`)
    }
    this.#byKey.set(key, record)
    if (isDurable(record)) put(this.#byRid, { key: record.rid, record })
    if (!this.#isLiftedRecord(record)) {
      put(this.#bySubject, { key: record.subject, record })
      this.#inForce++
    }
    if (record.expiresAtMs !== 0 && record.expiresAtMs < this.#nextExpiryMs) {
      this.#nextExpiryMs = record.expiresAtMs
    }
    return true
  }

  /**
   * Ends every durable record of this `rid`, also one that comes later. False when it is lifted already, or when there
   * are too many lifts to hold one more: then its records stay in force.
   */
  lift(rid: string): boolean {
    if (this.#lifted.has(rid) || this.#lifted.size >= this.#maxRecords) return false
    for (const record of this.#byRid.get(rid) ?? []) this.#unindex(record)
    this.#lifted.add(rid)
    return true
  }

  isLifted(rid: string): boolean {
    return this.#lifted.has(rid)
  }

  has(record: Revocation): boolean {
    return this.#byKey.has(recordKey(record))
  }

  isInForce(record: Revocation): boolean {
    return this.#byKey.has(recordKey(record)) && !this.#isLiftedRecord(record)
  }

  /** Takes out a provisional record that a durable one stands for. */
  drop(provisional: Revocation): void {
    const held = this.#byKey.get(recordKey(provisional))
    if (!held || isDurable(held)) return
    this.#byKey.delete(recordKey(held))
    this.#unindex(held)
  }

  /** The durable records of this `rid`. */
  withRid(rid: string): readonly Revocation[] {
    return [...(this.#byRid.get(rid) ?? [])]
  }

  /**
   * The strictest record on any of these subjects: `quarantine`, then `revoke`, then `pause`. Among equals, that of
   * the earliest subject in the list, and of one subject the one that was added first.
   */
  find(subjects: readonly string[]): Revocation | undefined {
    if (this.#inForce === 0) return undefined
    let strictest: Revocation | undefined
    for (const subject of subjects) {
      for (const record of this.#bySubject.get(subject) ?? []) {
        if (!strictest || strictness[record.op] > strictness[strictest.op]) strictest = record
      }
    }
    return strictest
  }

  /** Drops and returns what has expired at `nowMs`, epoch milliseconds on the store's clock. Cheap when nothing has. */
  expire(nowMs: number): readonly Revocation[] {
    if (nowMs < this.#nextExpiryMs) return []
    const expired: Revocation[] = []
    this.#nextExpiryMs = Infinity
    for (const [key, record] of this.#byKey) {
      if (record.expiresAtMs === 0) continue
      if (record.expiresAtMs <= nowMs) {
        this.#byKey.delete(key)
        expired.push(record)
      } else if (record.expiresAtMs < this.#nextExpiryMs) {
        this.#nextExpiryMs = record.expiresAtMs
      }
    }
    for (const record of expired) this.#forget(record)
    return expired
  }

  /** Every record that is held, lifted or not, in the order in which they were added. */
  records(): readonly Revocation[] {
    return [...this.#byKey.values()]
  }

  #isLiftedRecord(record: Revocation): boolean {
    return isDurable(record) && this.#lifted.has(record.rid)
  }

  /** A lift goes when the last record that it names here has expired, never before. */
  #forget(record: Revocation): void {
    this.#unindex(record)
    const sameRid = this.#byRid.get(record.rid)
    sameRid?.delete(record)
    if (sameRid?.size !== 0) return
    this.#byRid.delete(record.rid)
    this.#lifted.delete(record.rid)
  }

  #unindex(record: Revocation): void {
    const onSubject = this.#bySubject.get(record.subject)
    if (onSubject?.delete(record) !== true) return
    this.#inForce--
    if (onSubject.size === 0) this.#bySubject.delete(record.subject)
  }
}

/** Recorded in the store, and not only heard. */
export function isDurable(record: Revocation): boolean {
  return record.epoch !== undefined
}

/**
 * What makes two records one. Not the `rid` alone: a forged message that takes the `rid` of a true record, with another
 * subject or a sooner expiry, would hide the true one.
 */
export function recordKey(record: Revocation): string {
  return `${record.rid} ${record.op} ${record.expiresAtMs} ${record.subject}`
}

const defaultMaxRecords = 500_000

const strictness: Readonly<Record<RevocationOp, number>> = { pause: 1, revoke: 2, quarantine: 3 }

function put(
  index: Map<string, Set<Revocation>>,
  { key, record }: { readonly key: string; readonly record: Revocation },
): void {
  const there = index.get(key)
  if (there) there.add(record)
  else index.set(key, new Set([record]))
}
