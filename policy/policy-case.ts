import { askPolicies, type PolicyInput } from './ask-policies.ts'
import type { PolicyEngine } from './cedar-engine.ts'
import { grantChain } from './grant.ts'
import type {
  ArgumentValue,
  Decision,
  Grant,
  GrantChain,
  McpMessage,
  Operation,
  Sensitivity,
  SpiffeId,
  Upstream,
} from './types.ts'

/** One question to the policies, and the answer that their author expects. */
export interface PolicyCase {
  readonly name: string
  readonly agent: SpiffeId
  readonly task: string
  readonly purpose: string
  readonly sensitivity: Sensitivity
  readonly approver: string
  /** What the task was delegated from, root first. Default: nothing. */
  readonly above?: readonly { readonly task: string; readonly approver: string }[]
  readonly upstream: Pick<Upstream, 'name' | 'kind' | 'sensitivity'> & Partial<Upstream>
  readonly asked: AskedOperation
  /** Epoch milliseconds. */
  readonly nowMs: number
  readonly expect: 'allow' | 'deny'
  /** The policy that must be among those that decide. */
  readonly by?: string
}

export type AskedOperation =
  | {
      readonly kind: 'http' | 'websocket'
      readonly method: string
      readonly path: string
      readonly hasQuery: boolean
    }
  | {
      readonly kind: 'tool'
      readonly tool: string
      readonly args: ReadonlyMap<string, ArgumentValue>
    }
  | { readonly kind: 'message'; readonly path: string; readonly message: McpMessage }

export interface CaseResult {
  readonly name: string
  readonly holds: boolean
  readonly decision: Decision
  /** What was expected and what came instead; empty when it holds. */
  readonly difference: string
}

/** Asks the policies alone: grants, expiry and revocation are not what a policy test is about. */
export function runCase(policyCase: PolicyCase, engine: PolicyEngine): CaseResult {
  const decision = askPolicies({ ...questionOf(policyCase), engine })
  const difference = differ(policyCase, decision)
  return { name: policyCase.name, holds: difference === '', decision, difference }
}

/** The case with the tools and operations of the configured upstream that it names: where one has them, each must. */
export function atUpstreamOf(
  policyCase: PolicyCase,
  upstreams: ReadonlyMap<string, Upstream>,
): PolicyCase {
  const { upstream } = policyCase
  const known = upstreams.get(upstream.name)
  const all = [...upstreams.values()]
  return {
    ...policyCase,
    upstream: {
      ...upstream,
      ...(all.some(({ tools }) => tools) && { tools: known?.tools ?? new Map() }),
      ...(all.some(({ operations }) => operations) && {
        operations: known?.operations ?? new Map(),
      }),
    },
  }
}

function differ({ expect, by }: PolicyCase, decision: Decision): string {
  const ids = decision.policyIds ?? []
  const said = `${decision.outcome} by ${ids.length === 0 ? 'no policy' : ids.join(', ')}`
  const detail = decision.outcome === 'allow' ? '' : ` (${decision.detail})`
  if (decision.outcome !== expect) return `expected ${expect}, got ${said}${detail}`
  if (by !== undefined && !ids.includes(by))
    return `expected ${expect} by ${by}, got ${said}${detail}`
  return ''
}

const oneHourMs = 3_600_000

/** What the policies are asked. */
export function questionOf(policyCase: PolicyCase): Omit<PolicyInput, 'engine'> {
  const { agent, nowMs, upstream } = policyCase
  return {
    agent: {
      id: agent,
      trustDomain: agent.slice('spiffe://'.length).split('/', 1)[0] ?? '',
      kind: 'jwt-svid',
      expiresAtMs: nowMs + oneHourMs,
      svidDigest: '',
    },
    chain: chainOf(policyCase),
    operation: operationOf(policyCase.asked),
    upstream: { origin: `https://${upstream.name}.test`, ...upstream },
    nowMs,
  }
}

function chainOf({ above = [], ...leaf }: PolicyCase): GrantChain {
  const links = [...above, leaf].map((link) => grantOf({ ...leaf, ...link }))
  const [root = grantOf(leaf), ...descendants] = links
  return grantChain(root, ...descendants)
}

/** Of a link above the leaf, policies see the task and the approver alone. */
function grantOf({ agent, task, purpose, sensitivity, approver, nowMs }: PolicyCase): Grant {
  return {
    approver,
    kid: '',
    jti: 'policy-test',
    txn: task,
    agent,
    audience: '',
    issuedAtMs: nowMs,
    notBeforeMs: nowMs,
    expiresAtMs: nowMs + oneHourMs,
    purpose,
    sensitivity,
    destinations: [],
    s256: '',
  }
}

function operationOf(asked: AskedOperation): Operation {
  if (asked.kind === 'tool') {
    const { tool, args } = asked
    const message = { type: 'tools/call', id: 1, tool, args } as const
    return { kind: 'mcp', method: 'POST', path: '/mcp', hasQuery: false, message }
  }
  if (asked.kind === 'message') {
    const { path, message } = asked
    return { kind: 'mcp', method: 'POST', path, hasQuery: false, message }
  }
  const { kind, method, path, hasQuery } = asked
  if (kind === 'websocket') return { kind, method: 'GET', path, hasQuery }
  return { kind, method, path, hasQuery }
}
