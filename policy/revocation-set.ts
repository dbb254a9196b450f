import type { Revocation, RevocationOp } from './types.ts'

/** The set cannot hold one more record. Whoever feeds it must refuse traffic: what it drops may be in force. */
export class RevocationSetFullError extends Error {
  override readonly name = 'RevocationSetFullError'
  readonly code = 'ERR_REVOCATION_SET_FULL'
}

/**
 * The records in force, indexed by subject. It only grows, by union, until a record's own expiry: loss, repetition and
 * reordering of what feeds it can delay a revocation, never undo one.
 */
export class RevocationSet {
  readonly #byKey = new Map<string, Revocation>()
  readonly #bySubject = new Map<string, Set<Revocation>>()
  readonly #maxRecords: number
  #nextExpiryMs = Infinity

  constructor(options: { readonly maxRecords?: number } = {}) {
    this.#maxRecords = options.maxRecords ?? defaultMaxRecords
  }

  get size(): number {
    return this.#byKey.size
  }

  /** True when the record is new. Throws `RevocationSetFullError` at `maxRecords` (default 500,000). */
  add(record: Revocation): boolean {
    const key = recordKey(record)
    if (this.#byKey.has(key)) return false
    if (this.#byKey.size >= this.#maxRecords) {
      throw new RevocationSetFullError(`Cannot hold more than ${this.#maxRecords} revocations`)
    }
    this.#byKey.set(key, record)
    const onSubject = this.#bySubject.get(record.subject)
    if (onSubject) onSubject.add(record)
    else this.#bySubject.set(record.subject, new Set([record]))
    if (record.expiresAtMs !== 0 && record.expiresAtMs < this.#nextExpiryMs) {
      this.#nextExpiryMs = record.expiresAtMs
    }
    return true
  }

  /**
   * The strictest record on any of these subjects: `quarantine`, then `revoke`, then `pause`. Among equals, that of
   * the earliest subject in the list, and of one subject the one that was added first.
   */
  find(subjects: readonly string[]): Revocation | undefined {
    if (this.#byKey.size === 0) return undefined
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
    for (const record of expired) this.#unindex(record)
    return expired
  }

  /** Every record in force, in the order in which they were added. */
  records(): readonly Revocation[] {
    return [...this.#byKey.values()]
  }

  #unindex(record: Revocation): void {
    const onSubject = this.#bySubject.get(record.subject)
    onSubject?.delete(record)
    if (onSubject?.size === 0) this.#bySubject.delete(record.subject)
  }
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
