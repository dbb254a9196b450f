import type { Lift, LiftResult } from '../policy/lift.ts'
import type { FeedLog } from './feed-log.ts'
import type { StoredLift } from './revocation-record.ts'

export type VerifyLift = (compact: string) => Promise<LiftResult>

/** Nobody is named that could lift. */
export const refuseLifts: VerifyLift = async () => ({
  ok: false,
  reason: 'no operator may lift',
})

/** Lets through only lifts that an operator signed, each in its own time: a lift may be late, a revocation never is. */
export class LiftGate {
  readonly #verify: VerifyLift
  readonly #log: FeedLog
  /** What was refused already: a scan reads it again each time, and it is one lift. */
  readonly #refused = new Set<string>()
  #verifying = 0
  #ignored = 0

  constructor(options: { readonly verify: VerifyLift; readonly log: FeedLog }) {
    this.#verify = options.verify
    this.#log = options.log
  }

  /** How many were ignored. */
  get ignored(): number {
    return this.#ignored
  }

  /** One that has no signature. */
  refuseUnsigned(): void {
    this.#refuse('it is not signed')
  }

  /** The lift, or undefined when it does not count. */
  async admit({
    rid,
    compact,
  }: Pick<StoredLift, 'compact'> & { readonly rid?: string }): Promise<Lift | undefined> {
    const result = await this.#verify(compact)
    if (result.ok && (rid === undefined || result.lift.rid === rid)) return result.lift
    if (this.#refused.has(compact)) return undefined
    if (this.#refused.size >= maxRemembered) this.#refused.clear()
    this.#refused.add(compact)
    this.#refuse(result.ok ? 'it stands under another id' : result.reason)
    return undefined
  }

  /** From the channel: over the bound it is left to the next sync, so that a storm costs no more than that. */
  async admitHeard(stored: StoredLift): Promise<Lift | undefined> {
    if (this.#verifying >= maxVerifying) return undefined
    this.#verifying++
    try {
      return await this.admit(stored)
    } finally {
      this.#verifying--
    }
  }

  #refuse(reason: string): void {
    this.#ignored++
    if (this.#ignored % logEvery !== 1) return
    this.#log.error({ reason, liftsIgnored: this.#ignored }, 'Ignored a lift: nothing is lifted')
  }
}

const maxVerifying = 8
const maxRemembered = 1_000
/** A storm of forged lifts must not become a storm of log lines. */
const logEvery = 100
