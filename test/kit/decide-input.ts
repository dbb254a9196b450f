import { readFileSync } from 'node:fs'
import { withApiOperations } from '../../policy/api-operations.ts'
import { compilePolicies, type PolicyEngine } from '../../policy/cedar.ts'
import type { DecideInput } from '../../policy/decide.ts'
import { grantChain } from '../../policy/grant.ts'
import { chainSubjects } from '../../policy/subject.ts'
import { withToolTypes } from '../../policy/tool-types.ts'
import type {
  Agent,
  ArgumentValue,
  Destination,
  Grant,
  GrantChain,
  Operation,
  Revocation,
  RevocationView,
  Upstream,
} from '../../policy/types.ts'
import { names } from './tokens.ts'

const folder = new URL('../../policy/cedar/', import.meta.url)
/** A shipped policy file. */
export const readText = (file: string): string => readFileSync(new URL(file, folder), 'utf8')
export const nowMs = Date.UTC(2026, 0, 1)

export const agent: Agent = {
  id: names.agent,
  trustDomain: names.trustDomain,
  kind: 'jwt-svid',
  expiresAtMs: nowMs + 300_000,
  svidDigest: '0123456789abcdef',
}
export const rest: Upstream = {
  name: 'api',
  kind: 'rest',
  origin: names.upstream,
  sensitivity: 'internal',
}
export const mcp: Upstream = { ...rest, name: 'files', kind: 'mcp' }
export const shipped = engineOf(readText('default.cedar'))

/** A GET that the shipped policies allow, but for what the test changes. */
export function input(more: Partial<DecideInput> = {}): DecideInput {
  return {
    agent,
    chain: grantChain(grant()),
    operation: http('GET'),
    upstream: rest,
    engine: shipped,
    view: viewOf([]),
    nowMs,
    monotonicMs: 0,
    staleAfterWritesMs: 5_000,
    staleAfterReadsMs: 60_000,
    ...more,
  }
}

/** The system policies and this text, compiled; against what the files of these upstreams declare too. */
export function engineOf(text: string, upstreams: readonly Upstream[] = []): PolicyEngine {
  const sources = [
    { file: 'system.cedar', text: readText('system.cedar') },
    { file: 'a.cedar', text },
  ]
  const typed = withToolTypes(readText('chaperone.cedarschema'), upstreams)
  const result = compilePolicies(sources, { schema: withApiOperations(typed, upstreams) })
  if (!result.ok) throw new Error(JSON.stringify(result.problems))
  return result.engine
}

/** A view with these records in force. */
export function viewOf(records: readonly Revocation[], ageMs: number = 0): RevocationView {
  return {
    epoch: '1:h',
    ageMs: () => ageMs,
    find: (subjects) => records.find(({ subject }) => subjects.includes(subject)),
  }
}

export function record(more: Partial<Revocation>): Revocation {
  const fixed = { reason: 'test', by: 'operator', atMs: nowMs, expiresAtMs: 0 }
  return { rid: 'r1', op: 'revoke', subject: 'all', ...fixed, ...more }
}

export function api(more: { readonly paths?: readonly string[] } = {}): Destination {
  const actions = ['GET', 'HEAD', 'POST']
  return {
    type: 'http_api',
    locations: [names.upstream],
    actions,
    paths: ['/v1/**', '/admin/**'],
    ...more,
  }
}

export function grant(more: Partial<Grant> = {}): Grant {
  return {
    approver: names.approver,
    kid: 'k',
    jti: 'g1',
    txn: 'task-1',
    agent: names.agent,
    audience: names.audience,
    issuedAtMs: nowMs,
    notBeforeMs: nowMs,
    expiresAtMs: nowMs + 600_000,
    purpose: 'invoice-check',
    sensitivity: 'internal',
    destinations: [
      api(),
      { type: 'ws', locations: ['wss://api.example.org'], paths: ['/v1/**'] },
      { type: 'mcp_server', locations: [`${names.upstream}/mcp`], tools: ['*'] },
    ],
    s256: 'x',
    ...more,
  }
}

export function chainOf(links: readonly [Grant, Grant]): GrantChain {
  const [root, leaf] = links
  const expiresAtMs = Math.min(root.expiresAtMs, leaf.expiresAtMs)
  return { links, leaf, signOffs: [], expiresAtMs, subjects: chainSubjects(links) }
}

export function http(method: string, path: string = '/v1/a'): Operation {
  return { kind: 'http', method, path, hasQuery: false }
}

export function websocket(): Operation {
  return { kind: 'websocket', method: 'GET', path: '/v1/a', hasQuery: false }
}

export function call(
  tool: string,
  args: readonly (readonly [string, ArgumentValue])[] = [],
): Operation {
  return mcpOperation({ type: 'tools/call', id: 1, tool, args: new Map(args) })
}

export function list(): Operation {
  return mcpOperation({ type: 'request', id: 1, method: 'tools/list' })
}

export function answer(): Operation {
  return mcpOperation({ type: 'response', id: 1 })
}

export function mcpOperation(message: Extract<Operation, { kind: 'mcp' }>['message']): Operation {
  return { kind: 'mcp', method: 'POST', path: '/mcp', hasQuery: false, message }
}
