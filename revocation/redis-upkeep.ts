import type { Clock } from '../policy/types.ts'
import type { FeedLog } from './feed-log.ts'
import { describeFault } from './redis-connection.ts'
import type { RedisScripts } from './redis-scripts.ts'
import type { Replica } from './replica.ts'
import { missingKey, type Missing } from './unproven.ts'

export interface UpkeepOptions {
  readonly replica: Replica
  readonly scripts: RedisScripts
  readonly clock: Clock
  readonly log: FeedLog
}

/**
 * Gives the store what only this sidecar may have: bare assertions become records, and what the store lost is committed
 * again. Every sidecar does so, and the scripts make it one record. Bounded per turn, and a refusal is left alone for a
 * while: a sidecar without the right keeps what it heard in force by itself.
 */
export class RedisUpkeep {
  readonly #options: UpkeepOptions
  /** Keys of what the store refuses for good: another record has the rid. */
  readonly #refused = new Set<string>()
  #restUntilMs = -Infinity
  #restored = 0

  constructor(options: UpkeepOptions) {
    this.#options = options
  }

  /** Whether a turn has something to do. */
  get isDue(): boolean {
    const { replica, clock } = this.#options
    if (clock.monotonic() < this.#restUntilMs) return false
    return replica.assertions(1).length > 0 || this.#offers(1).length > 0
  }

  /** One turn. Never rejects. */
  async run(): Promise<void> {
    const { replica, scripts } = this.#options
    if (!this.isDue) return
    const hadMissing = this.#offers(1).length > 0
    const results = await Promise.all([
      ...replica
        .assertions(absorbsPerTurn)
        .map(async (assertion) =>
          this.#attempt(async () => replica.absorbed(assertion, await scripts.absorb(assertion))),
        ),
      ...this.#offers(offersPerTurn).map(async (missing) =>
        this.#attempt(() => this.#offer(missing)),
      ),
    ])
    if (results.includes(false)) this.#rest()
    else if (hadMissing && this.#offers(1).length === 0) {
      this.#options.log.info({ restored: this.#restored }, 'Redis has the lost revocations again')
      this.#restored = 0
    }
  }

  #offers(limit: number): readonly Missing[] {
    const offers: Missing[] = []
    for (const missing of this.#options.replica.missing) {
      if (offers.length >= limit) break
      if (!this.#refused.has(missingKey(missing))) offers.push(missing)
    }
    return offers
  }

  async #offer(missing: Missing): Promise<void> {
    const { scripts, replica } = this.#options
    try {
      if (missing.kind === 'lift') await scripts.commitLift(missing.lift)
      else await scripts.commit(missing.record)
      replica.restored(missing)
      this.#restored++
    } catch (error) {
      if (!isConflict(error)) throw error
      if (this.#refused.size >= maxRefused) this.#refused.clear()
      const key = missingKey(missing)
      this.#refused.add(key)
      this.#options.log.error(
        { key },
        'Redis has another record of this rid: it stays in force here',
      )
    }
  }

  async #attempt(ask: () => Promise<void>): Promise<boolean> {
    try {
      await ask()
      return true
    } catch (error) {
      if (this.#options.clock.monotonic() < this.#restUntilMs) return false
      this.#rest()
      this.#options.log.warn(
        describeFault(error),
        'Redis does not take what only this sidecar has: it stays in force here',
      )
      return false
    }
  }

  #rest(): void {
    this.#restUntilMs = this.#options.clock.monotonic() + restMs
  }
}

const absorbsPerTurn = 10
const offersPerTurn = 50
const maxRefused = 10_000
/** Below the five seconds in which a bare assertion should have become a record. */
const restMs = 2_000

function isConflict(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith('RIDCONFLICT')
}
