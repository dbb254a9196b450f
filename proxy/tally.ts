import type { Registry } from 'prom-client'
import Counter from 'prom-client/lib/counter.js'

/** Adds to the count of two label values. */
export type Tally = (first: string, second: string, count?: number) => void

/** A counter that every request adds to: its labels are put together when it is scraped, not at every call. */
export function createTally(
  registry: Registry,
  options: {
    readonly name: string
    readonly help: string
    readonly labelNames: readonly [string, string]
  },
): Tally {
  const counts = new Map<string, Map<string, number>>()
  const [firstName, secondName] = options.labelNames
  registry.registerMetric(
    new Counter({
      ...options,
      registers: [],
      collect() {
        this.reset()
        for (const [first, seconds] of counts) {
          for (const [second, count] of seconds) {
            this.inc({ [firstName]: first, [secondName]: second }, count)
          }
        }
      },
    }),
  )
  return (first, second, count = 1) => {
    const seconds = counts.get(first) ?? new Map<string, number>()
    if (seconds.size === 0) counts.set(first, seconds)
    seconds.set(second, (seconds.get(second) ?? 0) + count)
  }
}
