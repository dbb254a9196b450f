import { nearestName } from '../config/nearest-name.ts'
import type { Policy } from './cedar.ts'
import { formatPolicyProblem, problemAt, type PolicyProblem } from './cedar-source.ts'
import { clausesOf, onOneLine, type Clause } from './clauses.ts'
import { contradictionOf } from './contradiction.ts'
import { isSystemPolicy } from './decide.ts'
import { coversReach, reachOf, type Reach } from './policy-reach.ts'
import type { Upstream } from './types.ts'

/** What a valid set of policies probably does not mean. A public contract (docs/policy.md). */
export type FindingCode =
  | 'never-matches'
  | 'shadowed-permit'
  | 'unreachable-forbid'
  | 'reaches-restricted'
  | 'unknown-upstream'
  | 'narrow-action'

export interface PolicyFinding extends PolicyProblem {
  readonly code: FindingCode
  readonly hint: string
}

/** `team.cedar:3:8 [never-matches] It cannot hold beside ... (...)` */
export function formatFinding(found: PolicyFinding): string {
  return formatPolicyProblem({ ...found, message: `[${found.code}] ${found.message}` })
}

export interface FindingsOptions {
  /** Of the configuration, by name. Absent: what depends on them is not looked for. */
  readonly upstreams?: ReadonlyMap<string, Upstream>
}

/** What is valid and probably a mistake, in the order of the files. The shipped policies are not looked at. */
export function findSuspicious(
  policies: readonly Policy[],
  { upstreams }: FindingsOptions = {},
): readonly PolicyFinding[] {
  const read = policies.map(readClauses)
  return read
    .filter(({ policy }) => !isSystemPolicy(policy.id))
    .flatMap((one) => [
      ...findNeverMatching(one, upstreams),
      ...findCovered(one, read),
      ...findNarrowAction(one),
      ...(upstreams ? findReach(one, upstreams) : []),
      ...(upstreams ? findUnknownUpstreams(one, upstreams) : []),
    ])
}

interface Read {
  readonly policy: Policy
  readonly scope: Reach
  readonly clauses: readonly Clause[]
  /** The conditions alone, each on one line. */
  readonly conditions: ReadonlySet<string>
}

function readClauses(policy: Policy): Read {
  const clauses = clausesOf(policy.text)
  const conditions = clauses.filter(({ part }) => part === 'when' || part === 'unless')
  return {
    policy,
    scope: reachOf(policy.json),
    clauses,
    conditions: new Set(conditions.map((clause) => `${clause.part} ${onOneLine(clause)}`)),
  }
}

function findNeverMatching(
  { policy, scope, clauses }: Read,
  upstreams: FindingsOptions['upstreams'],
): readonly PolicyFinding[] {
  const contradiction = contradictionOf(clauses, { actions: scope.actions, upstreams })
  if (!contradiction) return []
  const { clause, message, hint } = contradiction
  return [finding(policy, { code: 'never-matches', start: clause.start, message, hint })]
}

/** A forbid takes away everything that this policy is about: same scope or more, same conditions or fewer. */
function findCovered(
  { policy, scope, conditions }: Read,
  all: readonly Read[],
): readonly PolicyFinding[] {
  const index = all.findIndex((other) => other.policy === policy)
  const covering = all.find(
    (other, at) =>
      other.policy !== policy &&
      other.policy.effect === 'forbid' &&
      other.policy.mode === 'enforce' &&
      coversReach(other.scope, scope) &&
      other.conditions.isSubsetOf(conditions) &&
      // Of two that are the same, only the second is too many.
      (at < index || policy.effect === 'permit' || !isSame(other, { scope, conditions })),
  )
  if (!covering) return []
  const { id, source, start } = covering.policy
  const { line } = problemAt(source, { start, message: '' })
  const where = `"${id}" (${source.file}:${line})`
  return policy.effect === 'permit'
    ? [
        finding(policy, {
          code: 'shadowed-permit',
          message: `It never permits anything: the forbid ${where} covers all of it`,
          hint: 'Narrow the forbid, or take this permit out',
        }),
      ]
    : [
        finding(policy, {
          code: 'unreachable-forbid',
          message: `It forbids nothing more: the forbid ${where} covers all of it`,
          hint: 'Take it out, or narrow the other one',
        }),
      ]
}

function isSame(other: Read, { scope, conditions }: Pick<Read, 'scope' | 'conditions'>): boolean {
  return coversReach(scope, other.scope) && conditions.size === other.conditions.size
}

const httpOnly = /\bcontext\.(method|path|has_query)\b/

/** What is meant as "no writes" must name the group: a tool call is a write too. */
function findNarrowAction({ policy, scope, clauses }: Read): readonly PolicyFinding[] {
  const at = clauses.find(({ part }) => part === 'action')
  const isNarrow = policy.effect === 'forbid' && scope.actions.join() === 'http.write'
  if (!at || !isNarrow || clauses.some(({ text }) => httpOnly.test(text))) return []
  const message = 'It leaves out websocket.connect, mcp.response and tools/call, which write too'
  const hint = 'Write action in Chaperone::Action::"write"'
  return [finding(policy, { code: 'narrow-action', start: at.start, message, hint })]
}

function findReach(
  { policy, clauses }: Read,
  upstreams: ReadonlyMap<string, Upstream>,
): readonly PolicyFinding[] {
  if (policy.effect === 'forbid' || isAboutResource(clauses)) return []
  const restricted = [...upstreams.values()].filter(
    ({ sensitivity }) => sensitivity === 'restricted',
  )
  if (restricted.length === 0) return []
  const names = restricted.map(({ name }) => name).join(', ')
  return [
    finding(policy, {
      code: 'reaches-restricted',
      message: `It reaches every upstream, also restricted ones: ${names}`,
      hint: 'Name the upstream, or add: when { resource.sensitivity < 3 }',
    }),
  ]
}

/** That it is an upstream says nothing: there is no other resource. */
function isAboutResource(clauses: readonly Clause[]): boolean {
  return clauses.some(
    ({ part, text }) =>
      /\bresource\b/.test(text) && !(part === 'resource' && !/==|\bin\b/.test(text)),
  )
}

function findUnknownUpstreams(
  { policy, clauses }: Read,
  upstreams: ReadonlyMap<string, Upstream>,
): readonly PolicyFinding[] {
  const names = [...upstreams.keys()]
  return clauses.flatMap(({ text, start }) =>
    [...text.matchAll(/Chaperone::Upstream::"((?:[^"\\]|\\.)*)"/g)]
      .filter(([, name = '']) => !upstreams.has(name))
      .map(({ 1: name = '', index }) => {
        const near = nearestName(name, names)
        return finding(policy, {
          code: 'unknown-upstream',
          start: start + index,
          message: `No upstream of the configuration has the name "${name}"`,
          hint: near === undefined ? `There are ${names.join(', ')}` : `did you mean "${near}"?`,
        })
      }),
  )
}

interface Said {
  readonly code: FindingCode
  /** In the policy's text. Default: its start. */
  readonly start?: number
  readonly message: string
  readonly hint: string
}

function finding(
  { source, start: at }: Policy,
  { code, start = 0, message, hint }: Said,
): PolicyFinding {
  return { ...problemAt(source, { start: at + start, message }), code, hint }
}
