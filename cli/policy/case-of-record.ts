import type { ReadDecision } from '../../audit/read-record.ts'
import type { AskedOperation, PolicyCase } from '../../policy/policy-case.ts'
import { parseSpiffeId } from '../../policy/spiffe-id.ts'
import type { McpMessage, Upstream } from '../../policy/types.ts'

/** What a record says of its upstream is the name alone: the rest comes from a configuration. */
export type KnownUpstreams = ReadonlyMap<string, Upstream>

export type CaseOfRecordResult =
  | {
      readonly ok: true
      readonly policyCase: PolicyCase
      /** A record holds no arguments: what depends on them cannot be told from it. */
      readonly lacksArguments: boolean
    }
  | { readonly ok: false; readonly reason: string }

/** The question that a decision record answers, as far as the record holds it. */
export function caseOfRecord(record: ReadDecision, upstreams: KnownUpstreams): CaseOfRecordResult {
  const { agent, task, upstream: name, decision } = record
  if (!agent || !task || name === null) return no('it was refused before policies were asked')
  const { effect, policy_ids: ids } = decision
  if (effect === 'deny' && decision.code !== 'policy-denied') {
    return no(`it was refused by ${decision.code ?? 'another gate'}, which is no policy`)
  }
  // A denial of the grant carries the same code, but no set of policies was asked.
  if (effect === 'deny' && ids.length === 0 && !fromPolicies(decision.detail)) {
    return no('the grant refused it before policies were asked')
  }
  const { purpose, sensitivity, chain, ancestors, approvers } = task
  // The log comes from another machine, and perhaps from an older version.
  if (ancestors.length + 1 !== chain.length || approvers.length !== chain.length) {
    return no('it was made under a delegated grant, and not all that stands above it is recorded')
  }
  const id = parseSpiffeId(agent.spiffe_id)
  const asked = askedBy(record)
  if (sensitivity === undefined || !asked) {
    return no('it is of a version that records too little')
  }
  const upstream = upstreams.get(name)
  if (!upstream) return no(`the upstream "${name}" is not in the configuration`)
  if (!id) return no('its agent has no SPIFFE ID')
  const lacksArguments = asked.kind === 'tool'
  const policyCase: PolicyCase = {
    name: record.decision_id,
    agent: id,
    task: task.txn,
    purpose,
    sensitivity,
    approver: approvers.at(-1) ?? '',
    above: ancestors.map(({ txn }, index) => ({ task: txn, approver: approvers[index] ?? '' })),
    // Where arguments have types, a call without any would not be asked of policies at all.
    upstream: lacksArguments && upstream.tools ? { ...upstream, tools: new Map() } : upstream,
    asked,
    nowMs: Date.parse(record.ts),
    expect: effect === 'allow' ? 'allow' : 'deny',
  }
  return { ok: true, policyCase, lacksArguments }
}

function no(reason: string): CaseOfRecordResult {
  return { ok: false, reason }
}

/** The details that a decision of the policies has (policy/decide.ts). */
function fromPolicies(detail: string | null | undefined): boolean {
  return detail === 'no policy permits it' || (detail ?? '').startsWith('policy evaluation error')
}

function askedBy({ request }: ReadDecision): AskedOperation | undefined {
  const { kind, method, path, mcp, has_query: hasQuery = false } = request
  if (kind === 'http' || kind === 'websocket') return { kind, method, path, hasQuery }
  if (kind !== 'mcp' || !mcp) return undefined
  if (mcp.tool !== undefined) return { kind: 'tool', tool: mcp.tool, args: new Map() }
  return { kind: 'message', path, message: messageOf(mcp.method) }
}

/** A notification is asked of policies as a request is. */
function messageOf(method: string): McpMessage {
  return method === 'response' ? { type: 'response', id: 0 } : { type: 'request', id: 0, method }
}
