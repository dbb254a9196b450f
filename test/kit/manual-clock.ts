import type { Clock } from '../../policy/types.ts'

/** A clock that moves when the test says so. */
export interface ManualClock extends Clock {
  advance(ms: number): void
}

export function manualClock(nowMs: number = Date.now()): ManualClock {
  let passedMs = 0
  return {
    now: () => nowMs + passedMs,
    monotonic: () => passedMs,
    advance: (ms) => {
      passedMs += ms
    },
  }
}
