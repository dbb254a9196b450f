import type { Denial, Revocation } from '../policy/types.ts'

/** Why an exchange is ended before its time. */
export interface Cut {
  readonly code: Denial['code']
  readonly revocation?: Revocation
  /** Monotonic milliseconds at which the order to cut was given. */
  readonly atMonotonicMs: number
}

/** What the forwarder and the upgrade path hang on an exchange, so that it can be ended from outside. */
export interface Cuttable {
  /**
   * Ends the client side at once, in its dialect: a final message where one fits, else a reset, never a clean end.
   * Called once, synchronously; must not throw.
   */
  cutClient(cut: Cut): CutHow
  /** Aborts the upstream side. Called once, after every client of the same cut. */
  cutUpstream(): void
}

export type CutHow = 'final-message' | 'close-1008' | 'denied' | 'reset'

/**
 * One request in flight, or one live stream. Tracked before it is decided, so that a revocation which lands in between
 * still cuts it. `cut` is the flag that data callbacks test: once set, nothing more is forwarded.
 */
export interface Exchange extends Disposable {
  readonly cut: Cut | undefined
  readonly cutHow: CutHow | undefined
  /** Milliseconds from the order to cut until the client side was ended. */
  readonly cutAfterMs: number | undefined
  /** From now on, a revocation of this subject covers it too: the credential that it goes out with. */
  restsOn(subject: string): void
  /** Attaches the two sides. When the cut came first, both are ended at once. */
  attach(target: Cuttable): void
  /** Body bytes that were handed on. */
  bytesUp: number
  bytesDown: number
  /** When the last of them went, monotonic milliseconds; undefined: none went. */
  readonly lastUpMs: number | undefined
  readonly lastDownMs: number | undefined
}
