import type { ValidationError } from '@cedar-policy/cedar-wasm/nodejs'
import { nearestName } from '../config/nearest-name.ts'
import type { Policy } from './cedar.ts'
import { problemAt, problemOf, type PolicyProblem } from './cedar-source.ts'
import { clausesOf } from './clauses.ts'
import { actionGroups } from './policy-reach.ts'

/**
 * What Cedar's validator complains of, with a place and a next step, in the order of the files. It complains once per
 * action, in no order: one for each place is enough, and always the same one.
 */
export function problemsOfValidation(
  policies: readonly Policy[],
  complaints: readonly ValidationError[],
): PolicyProblem[] {
  const byPlace = new Map<string, PolicyProblem>()
  for (const policy of policies) {
    const own = complaints.filter(({ policyId }) => policyId === policy.id)
    const specific = own.filter((one) => !isGeneral(one))
    // That it never applies only follows from another complaint, which has a place of its own.
    const shown = specific.length > 0 ? specific : own
    for (const complaint of shown) {
      const problem = isGeneral(complaint)
        ? generalProblem(policy)
        : specificProblem(policy, complaint)
      const place = `${problem.file}:${problem.line}:${problem.col}`
      const other = byPlace.get(place)
      if (!other || problem.message < other.message) byPlace.set(place, problem)
    }
  }
  return [...byPlace.values()].toSorted(
    (a, b) => a.file.localeCompare(b.file) || a.line - b.line || a.col - b.col,
  )
}

function isGeneral({ error }: ValidationError): boolean {
  return /policy is impossible|unable to find an applicable action/.test(error.message)
}

function specificProblem(policy: Policy, { error }: ValidationError): PolicyProblem {
  const problem = problemOf(policy.source, { error, within: policy })
  const { hint } = problem
  if (/unrecognized action/.test(problem.message))
    return { ...problem, hint: actionHint(problem.message) }
  return hint === undefined
    ? problem
    : { ...problem, hint: hint.replace(/^for policy `[^`]*`, /, '') }
}

/** Cedar takes the namespace for part of the name: what it suggests is often another action. */
function actionHint(message: string): string {
  const known = [...Object.keys(actionGroups), 'read', 'write']
  const near = nearestName(/::"(.*)"`/.exec(message)?.[1] ?? '', known)
  if (near !== undefined) return `did you mean \`Chaperone::Action::"${near}"\`?`
  return `There are ${known.map((name) => `"${name}"`).join(', ')}, all Chaperone::Action::`
}

/** It validates to false for every request, and Cedar does not say why. */
function generalProblem({ source, start, text }: Policy): PolicyProblem {
  const action = clausesOf(text).find(({ part }) => part === 'action')
  const group = /^action == Chaperone::Action::"(read|write)"$/.exec(action?.text ?? '')?.[1]
  if (action && group !== undefined) {
    return problemAt(source, {
      start: start + action.start,
      message: `The policy is impossible: no request has the group "${group}" itself as its action`,
      hint: `Write action in Chaperone::Action::"${group}"`,
    })
  }
  return problemAt(source, {
    start,
    message: 'The policy is impossible: no request meets its scope and its conditions',
    hint: 'Look at the types first: the principal is an Agent, the resource an Upstream',
  })
}
