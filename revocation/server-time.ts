/**
 * The store's clock as seen from here: it decides when records expire. Never early: a server clock that leaps ahead of
 * our monotonic clock by more than a minute is not followed, or records would vanish with it.
 */
export class ServerTime {
  #anchor: { readonly serverMs: number; readonly monotonicMs: number } | undefined

  /** Epoch milliseconds; undefined before the first `learn()`. */
  now(monotonicMs: number): number | undefined {
    if (!this.#anchor) return undefined
    return this.#anchor.serverMs + (monotonicMs - this.#anchor.monotonicMs)
  }

  /** Takes the server's time, read at an instant not after `monotonicMs`. False when it leapt ahead and is not followed. */
  learn(serverMs: number, monotonicMs: number): boolean {
    const expected = this.now(monotonicMs)
    if (expected !== undefined && serverMs - expected > maxLeapMs) return false
    this.#anchor = { serverMs, monotonicMs }
    return true
  }
}

const maxLeapMs = 60_000
