import type { PolicySet, PolicySource } from '../policy/cedar.ts'
import { createEngine } from '../policy/cedar-engine.ts'
import type { CedarInstance } from '../policy/cedar-instance.ts'
import { formatPolicyProblem } from '../policy/cedar-source.ts'
import { findSuspicious, type PolicyFinding } from '../policy/findings.ts'
import { atUpstreamOf, runCase, type PolicyCase } from '../policy/policy-case.ts'
import type { Upstream } from '../policy/types.ts'
import { buildOrRecall } from './kept-policies.ts'

/** All that policies are made of, read. Plain data: it crosses threads. */
export interface PolicyInputs {
  readonly sources: readonly PolicySource[]
  /** Of a directory of its own. Absent: the same as `sources`, when a policy among them is in shadow. */
  readonly shadow?: readonly PolicySource[]
  readonly schema: string
  readonly cases: readonly FileOfCases[]
  readonly upstreams: ReadonlyMap<string, Upstream>
}

export interface FileOfCases {
  readonly file: string
  readonly cases: readonly PolicyCase[]
}

/** Plain data as well, but for `cedar`. */
export interface BuiltPolicies {
  readonly set: PolicySet
  /** Of the thread that built it: an engine there can begin with it. */
  readonly cedar?: CedarInstance | undefined
  readonly shadow?: PolicySet
  /** What is valid and probably a mistake. */
  readonly findings: readonly PolicyFinding[]
}

export type BuildPoliciesResult =
  | ({ readonly ok: true } & BuiltPolicies)
  /** A line for each problem. */
  | { readonly ok: false; readonly message: string }

/**
 * Compiles the policies and runs their cases: a set of which a case does not hold is as bad as one that does not compile.
 * Never throws.
 */
export function buildPolicies(input: PolicyInputs): BuildPoliciesResult {
  const { sources, schema, upstreams, shadow } = input
  const built = buildOrRecall(sources, { schema })
  if (!built.ok) return refused('Policies cannot be used', built.problems.map(formatPolicyProblem))
  const { set, cedar, policies } = built
  const failures = runCases(set, input)
  if (failures.length > 0) return refused('Cases do not hold', failures)
  const found: BuiltPolicies = { set, cedar, findings: findSuspicious(policies, { upstreams }) }
  const isTried = shadow !== undefined || policies.some(({ mode }) => mode === 'shadow')
  if (!isTried) return { ok: true, ...found }
  const tried = buildOrRecall(shadow ?? sources, { schema, withShadow: true })
  return tried.ok
    ? { ok: true, ...found, shadow: tried.set }
    : refused('Policies cannot be used', tried.problems.map(formatPolicyProblem))
}

function refused(what: string, lines: readonly string[]): BuildPoliciesResult {
  return { ok: false, message: `${what}:\n${lines.join('\n')}` }
}

/** One line for each case that does not hold. */
function runCases(set: PolicySet, { cases, upstreams }: PolicyInputs): readonly string[] {
  if (cases.length === 0) return []
  using engine = createEngine(set)
  return cases.flatMap(({ file, cases: all }) =>
    all.flatMap((one) => {
      const { holds, difference } = runCase(atUpstreamOf(one, upstreams), engine)
      return holds ? [] : [`${file}: ${one.name}: ${difference}`]
    }),
  )
}
