import type { EngineObserver } from '../policy/cedar.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'

/** Counts what happens in the policy engine, and says what an operator must know of. */
export function engineObserver({
  metrics,
  log,
}: {
  readonly metrics: Metrics
  readonly log: Log
}): EngineObserver {
  return {
    answered: (by) => metrics.policyAnswered(by),
    selfChecked(result) {
      metrics.policySelfChecked(result)
      if (result === 'same') return
      log.error(
        {},
        'a policy decision was another one in the plain way: it was refused, and short cuts are off until the next reload',
      )
    },
    replaced() {
      metrics.policyEngineReplaced()
      log.warn({}, 'the policy engine was worn out or broken, and was replaced')
    },
  }
}
