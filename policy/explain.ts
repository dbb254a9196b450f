import { CedarInstance } from './cedar-instance.ts'
import type { CedarRequest } from './cedar-request.ts'
import { clausesOf, onOneLine, policyOfClause, type Clause } from './clauses.ts'
import type { Policy } from './cedar.ts'
import { problemAt } from './cedar-source.ts'

/** What became of one clause. Cedar stops at the first that does not hold: those behind it were `not-reached`. */
export interface ExplainedClause {
  readonly outcome: 'holds' | 'fails' | 'errs' | 'not-reached'
  readonly part: Clause['part']
  /** On one line. */
  readonly text: string
  readonly line: number
  readonly col: number
  /** Cedar's words when it errs. */
  readonly error?: string
}

export interface ExplainedPolicy {
  readonly policy: Policy
  readonly line: number
  readonly col: number
  readonly clauses: readonly ExplainedClause[]
  /** Whether every clause holds. */
  readonly applies: boolean
}

/**
 * Why a policy applies to a request or not, clause by clause: each is asked as a policy of its own. For people before a
 * terminal: it costs as much as many decisions. Undefined when Cedar failed.
 */
export function explainPolicies(
  policies: readonly Policy[],
  request: CedarRequest,
): readonly ExplainedPolicy[] | undefined {
  const clauses = policies.map(({ text }) => clausesOf(text))
  const staticPolicies = Object.fromEntries(
    clauses.flatMap((list, policy) =>
      list.map((clause, index) => [`${policy}.${index}`, policyOfClause(clause)] as const),
    ),
  )
  const cedar = new CedarInstance()
  cedar.call(({ preparsePolicySet }) => preparsePolicySet('clauses', { staticPolicies }))
  const answer = cedar.call(({ statefulIsAuthorized }) =>
    statefulIsAuthorized({ ...request, preparsedPolicySetId: 'clauses' }),
  )
  if (answer?.type !== 'success') return undefined
  const { reason, errors } = answer.response.diagnostics
  const holding = new Set(reason)
  const failing = new Map(errors.map(({ policyId, error }) => [policyId, error.message]))
  return policies.map((policy, at) => {
    const explained = (clauses[at] ?? []).map((clause, index) =>
      explainClause(policy, { clause, id: `${at}.${index}`, holding, failing }),
    )
    const first = explained.findIndex(({ outcome }) => outcome !== 'holds')
    const reached = explained.map((one, index) =>
      first === -1 || index <= first ? one : notReached(one),
    )
    return { policy, ...placeOf(policy, 0), clauses: reached, applies: first === -1 }
  })
}

/** The permits that were nearest to applying: most of their clauses hold. At most `limit`. */
export function nearestPermits(
  explained: readonly ExplainedPolicy[],
  { limit }: { readonly limit: number },
): readonly ExplainedPolicy[] {
  return explained
    .filter(({ policy, applies }) => policy.effect === 'permit' && !applies)
    .map((one) => ({ one, share: holdingOf(one) / one.clauses.length }))
    .toSorted((a, b) => b.share - a.share)
    .slice(0, limit)
    .map(({ one }) => one)
}

/** How many clauses hold. */
export function holdingOf({ clauses }: ExplainedPolicy): number {
  return clauses.filter(({ outcome }) => outcome === 'holds').length
}

interface Answers {
  readonly clause: Clause
  readonly id: string
  readonly holding: ReadonlySet<string>
  readonly failing: ReadonlyMap<string, string>
}

function explainClause(policy: Policy, { clause, id, holding, failing }: Answers): ExplainedClause {
  const error = failing.get(id)
  const outcome = error !== undefined ? 'errs' : holding.has(id) ? 'holds' : 'fails'
  return {
    outcome,
    part: clause.part,
    text: onOneLine(clause),
    ...placeOf(policy, clause.start),
    ...(error !== undefined && { error }),
  }
}

function notReached({ part, text, line, col }: ExplainedClause): ExplainedClause {
  return { outcome: 'not-reached', part, text, line, col }
}

function placeOf({ source, start }: Policy, within: number): { line: number; col: number } {
  const { line, col } = problemAt(source, { start: start + within, message: '' })
  return { line, col }
}
