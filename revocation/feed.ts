import type { Lift } from '../policy/lift.ts'
import type { Revocation, RevocationView } from '../policy/types.ts'

/**
 * What keeps a sidecar's revocation view true: Redis in production, in-process for one machine.
 * `start()` returns at once and keeps trying for ever; until the first complete sync `view.ageMs()` is Infinity,
 * so every request is refused. Disposal closes connections and timers.
 */
export interface RevocationFeed extends AsyncDisposable {
  readonly view: RevocationView
  start(): void
  /** Resolves at the first complete sync. Never rejects. */
  readonly ready: Promise<void>
  /**
   * Called in the same tick in which records come into force, in the order of registration.
   * The listener cuts exchanges; it must not throw and must not wait.
   */
  onApplied(listener: (records: readonly Revocation[]) => void): void
  /** Called once for each verified lift, in the tick in which it counts; under the same rules. */
  onLifted(listener: (lift: Lift) => void): void
  /** For `/readyz?verbose`, metrics and `chaperone status`. */
  status(): FeedStatus
}

export interface FeedStatus {
  readonly source: 'redis' | 'embedded'
  readonly connected: boolean
  readonly epoch: string
  readonly ageMs: number
  /** Records in force. */
  readonly records: number
  /** Since start: syncs that found a gap, full scans, messages that did not parse, unsigned lifts ignored. */
  readonly gaps: number
  readonly scans: number
  readonly malformed: number
  readonly liftsIgnored: number
  /** Records held here that the store no longer has: it lost data. Alarmed, kept, offered back. */
  readonly missingInStore: number
  /** Absent: no deny file is configured. */
  readonly denyFile?: DenyFileStatus
}

/** What a deny file says here. */
export interface DenyFileStatus {
  /** Subjects that it denies. */
  readonly subjects: number
  /** Lines that cannot be read; 1 when the whole file cannot. */
  readonly problems: number
}

/** What an operator does: commit a record atomically with its log entry, head and push. */
export interface RevocationCommitter {
  /** Idempotent by `rid`. Resolves with the position and the server's time once the store has it. */
  commit(draft: RevocationDraft): Promise<Committed>
  /** Idempotent by the lift's `rid`. Whether it counts is for each sidecar to say: it verifies the signature. */
  commitLift(lift: Lift): Promise<Committed>
}

export interface RevocationDraft {
  readonly rid: string
  readonly op: Revocation['op']
  readonly subject: string
  readonly reason: string
  readonly by: string
  /** Epoch milliseconds; 0 = never. Must outlive every grant and credential of the subject. */
  readonly expiresAtMs: number
}

export interface Committed {
  /** `n:h` of the head after the commit. */
  readonly epoch: string
  readonly atMs: number
}
