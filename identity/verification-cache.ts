import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { isDenial } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'

interface VerificationCacheOptions<T> {
  /** Default 10 000. */
  readonly maxEntries?: number
  /**
   * Whether a result still holds: asked on every hit. What time and key changes take away, this must notice. Default:
   * always, for results whose user checks the times by itself.
   */
  readonly isCurrent?: (value: T) => boolean
}

/**
 * Remembers tokens that verified, so that a signature costs once. Failures are never remembered, and requests with one
 * token that come together share one verification. A hit says nothing of revocation, grant or policy.
 */
export class VerificationCache<T extends object> {
  readonly #values: LRUCache<string, T>
  /** Bounded by the exchanges in flight: each waits for one. */
  readonly #running = new Map<string, Promise<T | Denial>>()
  readonly #isCurrent: (value: T) => boolean

  constructor(options: VerificationCacheOptions<T> = {}) {
    this.#values = new LRUCache({ max: options.maxEntries ?? 10_000 })
    this.#isCurrent = options.isCurrent ?? (() => true)
  }

  /** What `run` gave for this text, or gives now. The value is frozen: it is shared by every later request. */
  async verify(compact: string, run: () => Promise<T | Denial>): Promise<T | Denial> {
    // Far over what any verifier takes: it refuses by length, and the text is not worth a hash.
    if (compact.length > maxTextBytes) return run()
    const key = hash('sha256', compact, 'base64')
    const held = this.#values.get(key)
    if (held !== undefined) {
      if (this.#isCurrent(held)) return held
      this.#values.delete(key)
    }
    const joined = this.#running.get(key)
    const result = await (joined ?? this.#run(key, run))
    // A key may have been withdrawn since the shared verification began: who joined late asks again.
    if (joined && !isDenial(result) && !this.#isCurrent(result)) return run()
    return result
  }

  get size(): number {
    return this.#values.size
  }

  async #run(key: string, run: () => Promise<T | Denial>): Promise<T | Denial> {
    const running = run()
    this.#running.set(key, running)
    try {
      const result = await running
      if (!isDenial(result)) this.#values.set(key, deepFreeze(result))
      return result
    } finally {
      this.#running.delete(key)
    }
  }
}

const maxTextBytes = 65_536

/** Plain data only, as verifiers give it. */
function deepFreeze<T extends object>(value: T): T {
  if (Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const member of Object.values(value)) {
    if (typeof member === 'object' && member !== null) deepFreeze(member)
  }
  return value
}
