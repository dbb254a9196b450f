import { askPolicies } from './ask-policies.ts'
import type { PolicyEngine } from './cedar-engine.ts'
import { rank } from './cedar-request.ts'
import { deny } from './denial.ts'
import { grantAllows, matchesDestination, type Target } from './destination.ts'
import { isRead } from './question.ts'
import { denialOfRevocation } from './revocation-code.ts'
import { agentSubjects } from './subject.ts'
import type {
  Agent,
  Decision,
  Denial,
  Destination,
  GrantChain,
  Operation,
  Revocation,
  RevocationView,
  Upstream,
} from './types.ts'

export interface DecideInput {
  readonly agent: Agent
  readonly chain: GrantChain
  readonly operation: Operation
  readonly upstream: Upstream
  readonly engine: PolicyEngine
  readonly view: RevocationView
  /** Epoch milliseconds. */
  readonly nowMs: number
  /** On the monotonic clock that the view's age is taken of. */
  readonly monotonicMs: number
  /** The oldest view on which anything but a read is decided. */
  readonly staleAfterWritesMs: number
  readonly staleAfterReadsMs: number
  /** Until then, epoch milliseconds, what the policies refuse is allowed and says so. Default: it is refused. */
  readonly unsafeObserveUntilMs?: number | undefined
}

/**
 * Decides one request. Pure and synchronous. The gates in code come first, and none of them can be permitted away:
 * revocation, age of the view, expiry, sensitivity, grants. Then the policies.
 */
export function decide(input: DecideInput): Decision {
  // A record that is known can only be true: it is named even when the view is old.
  return (
    findRevoked(input) ??
    findStale(input) ??
    findExpired(input) ??
    findTooSensitive(input) ??
    findNotGranted(input) ??
    orObserved(askPolicies(input), input)
  )
}

export interface AllowsToolInput extends Pick<
  DecideInput,
  'agent' | 'chain' | 'upstream' | 'engine' | 'view' | 'nowMs' | 'unsafeObserveUntilMs'
> {
  /** The operation whose answer lists the tool: a call of it would go the same way. */
  readonly operation: Operation
  readonly tool: string
}

/**
 * Whether a list may show the tool: every link grants it with some arguments, no record names it, and the policies
 * allow a call whose arguments are absent and whose `context.listing` is true. In doubt it is hidden: a permit that
 * needs an argument shows its tool only when it says `context.listing ||`.
 */
export function allowsTool(input: AllowsToolInput): boolean {
  const { operation, tool, chain, upstream } = input
  const { path, hasQuery } = operation
  const call: Operation = {
    kind: 'mcp',
    method: 'POST',
    path,
    hasQuery,
    message: { type: 'tools/call', id: 0, tool, args: new Map() },
  }
  const asked = { ...input, operation: call }
  if (findRevoked(asked) ?? findExpired(asked) ?? findTooSensitive(asked)) return false
  const target: Target = { operation: call, upstream }
  const granted = chain.links.every((link) =>
    link.destinations.some((entry) => matchesDestination(withAnyArguments(entry), target)),
  )
  return granted && orObserved(askPolicies({ ...asked, listing: true }), input).outcome === 'allow'
}

export type Asked = Pick<
  DecideInput,
  'agent' | 'chain' | 'operation' | 'upstream' | 'engine' | 'view' | 'nowMs'
>

function findRevoked({ view, chain, agent, upstream, operation }: Asked): Denial | undefined {
  // The subjects of its own agent are among those of a chain.
  const more = agent.id === chain.leaf.agent ? [] : agentSubjects(agent.id)
  const record = strictest(
    view.find(chain.subjects),
    view.find([...more, ...upstreamSubjects(upstream, operation)]),
  )
  return record && denialOfRevocation(record)
}

function upstreamSubjects({ name }: Upstream, operation: Operation): readonly string[] {
  if (operation.kind !== 'mcp' || operation.message.type !== 'tools/call') {
    return [`upstream:${name}`]
  }
  return [`upstream:${name}`, `tool:${name}/${operation.message.tool}`]
}

/** A pause, which may be lifted, never hides what ends the task. */
function strictest(
  first: Revocation | undefined,
  second: Revocation | undefined,
): Revocation | undefined {
  if (!first || !second) return first ?? second
  return first.op === 'pause' ? second : first
}

function findStale(input: DecideInput): Denial | undefined {
  const { operation, view, monotonicMs, staleAfterReadsMs, staleAfterWritesMs } = input
  const read = isRead(operation)
  const ageMs = view.ageMs(monotonicMs)
  const mostMs = read ? staleAfterReadsMs : staleAfterWritesMs
  // Negated, so that an age that is no number is too old.
  if (ageMs <= mostMs) return undefined
  const age = Number.isFinite(ageMs) ? `is ${Math.round(ageMs)} ms old` : 'was never complete'
  return deny(
    'control-plane-stale',
    `the revocation view ${age}, of at most ${mostMs} ms for ${read ? 'reads' : 'writes'}`,
  )
}

function findExpired({ chain, agent, nowMs }: Asked): Denial | undefined {
  if (!(nowMs < chain.expiresAtMs)) return deny('task-expired', 'a grant of the task has expired')
  if (!(nowMs < agent.expiresAtMs)) return deny('identity-invalid', 'the identity has expired')
  return undefined
}

function findTooSensitive({ chain, upstream }: Asked): Denial | undefined {
  const link = chain.links.find(({ sensitivity }) => rank(sensitivity) < rank(upstream.sensitivity))
  return (
    link &&
    deny(
      'policy-denied',
      `grant ${link.jti}: its sensitivity ${link.sensitivity} is below ${upstream.sensitivity} of the upstream`,
    )
  )
}

function findNotGranted({ chain, operation, upstream }: Asked): Denial | undefined {
  const link = chain.links.find((grant) => !grantAllows(grant, { operation, upstream }))
  return link && deny('policy-denied', `grant ${link.jti}: no destination of it allows this`)
}

/** Only an answer of the operator's policies is passed over: neither a fault, nor what the shipped policies say. */
function orObserved(
  decision: Decision,
  { nowMs, unsafeObserveUntilMs }: Pick<DecideInput, 'nowMs' | 'unsafeObserveUntilMs'>,
): Decision {
  if (decision.outcome === 'allow') return decision
  if (unsafeObserveUntilMs === undefined || !(nowMs < unsafeObserveUntilMs)) return decision
  const { outcome, policyIds = [] } = decision
  const isFault = outcome === 'deny' && decision.undecided === true
  if (isFault || policyIds.some(isSystemPolicy)) return decision
  return { outcome: 'allow', policyIds: [], observed: { outcome, policyIds } }
}

/** The policies that come with the product and that no operator can replace. */
export function isSystemPolicy(id: string): boolean {
  return id.startsWith('system/')
}

function withAnyArguments(entry: Destination): Destination {
  return entry.type === 'mcp_server' ? { ...entry, args: {} } : entry
}
