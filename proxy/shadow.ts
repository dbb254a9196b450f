import { askPolicies, recallPolicies, type PolicyInput } from '../policy/ask-policies.ts'
import type { PolicySet } from '../policy/cedar.ts'
import { createEngine } from '../policy/cedar-engine.ts'
import type { Decision } from '../policy/types.ts'

/** Policies that are asked beside those in force. What they say changes nothing. */
export interface Shadow extends Disposable {
  readonly policySetSha: string
  /** What they would have decided; undefined when policies were not asked at all. */
  compare(decision: Decision, asked: Omit<PolicyInput, 'engine'>): ShadowAnswer | undefined
}

export type ShadowAnswer =
  | { readonly outcome: Decision['outcome']; readonly policyIds: readonly string[] }
  | { readonly outcome: 'skipped' }

/** Asks Cedar at most so often in a second of the requests' own time. What is remembered costs nothing. */
export function createShadow(
  set: PolicySet,
  { maxPerSecond }: { readonly maxPerSecond: number },
): Shadow {
  let second = Number.NaN
  let count = 0
  const engine = createEngine(set, {
    observer: {
      answered(by) {
        if (by === 'engine') count += 1
      },
      selfChecked() {},
      replaced() {},
    },
  })
  return {
    policySetSha: engine.policySetSha,
    compare(decision, asked) {
      // What a gate in code refused is not for policies to say.
      if (decision.policyIds === undefined) return undefined
      const now = Math.floor(asked.nowMs / 1000)
      if (now !== second) count = 0
      second = now
      const input = { ...asked, engine }
      const answer = count < maxPerSecond ? askPolicies(input) : recallPolicies(input)
      return answer
        ? { outcome: answer.outcome, policyIds: answer.policyIds ?? [] }
        : { outcome: 'skipped' }
    },
    [Symbol.dispose]: () => engine[Symbol.dispose](),
  }
}
