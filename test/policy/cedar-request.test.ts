import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  buildCedarRequest,
  type CedarRequest,
  type CedarRequestInput,
} from '../../policy/cedar-request.ts'
import { compilePolicies } from '../../policy/cedar.ts'
import { grantChain } from '../../policy/grant.ts'
import { isRead } from '../../policy/question.ts'
import type { ArgumentValue, Grant, Operation } from '../../policy/types.ts'
import { names } from '../kit/tokens.ts'

const nowMs = Date.UTC(2026, 0, 1)
const schema = readFileSync(
  new URL('../../policy/cedar/chaperone.cedarschema', import.meta.url),
  'utf8',
)
const compiled = compilePolicies(
  [{ file: 'a.cedar', text: '@id("p") permit (principal, action, resource);' }],
  { schema },
)
if (!compiled.ok) throw new Error(JSON.stringify(compiled.problems))
const { engine } = compiled

const grant: Grant = {
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
  sensitivity: 'confidential',
  destinations: [],
  onBehalfOf: { iss: 'https://idp.example.org', sub: 'user-1' },
  s256: 'x',
}

describe('buildCedarRequest()', () => {
  test.each<[string, string, Operation]>([
    ['http.read', 'read', http('OPTIONS')],
    ['http.write', 'write', http('DELETE')],
    ['http.write', 'write', http('get')],
    [
      'websocket.connect',
      'write',
      { kind: 'websocket', method: 'GET', path: '/', hasQuery: false },
    ],
    ['mcp.request', 'read', mcp({ type: 'request', id: 1, method: 'tools/list' })],
    ['mcp.request', 'read', mcp({ type: 'notification', method: 'notifications/initialized' })],
    ['mcp.response', 'write', mcp({ type: 'response', id: 1 })],
    ['tools/call', 'write', call([])],
  ])('asks for %s in the group %s, as the schema has it', (id, group, operation) => {
    const request = build({ operation })
    expect(request.action).toEqual({ type: 'Chaperone::Action', id })
    expect(request.entities).toContainEqual({
      uid: request.action,
      attrs: {},
      parents: [{ type: 'Chaperone::Action', id: group }],
    })
    expect(isRead(operation)).toBe(group === 'read')
    expect(engine.authorize(request)).toMatchObject({ decision: 'allow', errors: [] })
  })

  test('tells who asks, for which task, of what', () => {
    const request = build()
    expect(request.context).toEqual({
      task: { __entity: { type: 'Chaperone::Task', id: 'task-1' } },
      purpose: 'invoice-check',
      sensitivity: 2,
      identity_kind: 'jwt-svid',
      method: 'GET',
      path: '/',
      has_query: false,
      now: { __extn: { fn: 'datetime', arg: '2026-01-01T00:00:00.000Z' } },
    })
    expect(request.entities).toContainEqual({
      uid: { type: 'Chaperone::Agent', id: names.agent },
      attrs: { trust_domain: 'example.org' },
      parents: ['spiffe://example.org', 'spiffe://example.org/agent', names.agent].map((id) => ({
        type: 'Chaperone::AgentGroup',
        id,
      })),
    })
    expect(request.entities).toContainEqual({
      uid: { type: 'Chaperone::Task', id: 'task-1' },
      attrs: {
        purpose: 'invoice-check',
        sensitivity: 2,
        approvers: [names.approver],
        depth: 0,
        on_behalf_of: 'user-1',
      },
      parents: [],
    })
  })

  test('gives the least sensitivity of the chain', () => {
    const child: Grant = { ...grant, jti: 'child', sensitivity: 'restricted' }
    const chain = { ...grantChain(grant), links: [grant, child] as const, leaf: child }
    expect(build({ chain }).context).toMatchObject({ sensitivity: 2 })
  })

  test('puts the task of a sub-agent into each task above it', () => {
    const links = ['T-1', 'T-2', 'T-3'].map((txn) => ({ ...grant, jti: txn, txn }))
    const [root = grant, ...below] = links
    const request = build({ chain: grantChain(root, ...below) })
    expect(request.entities).toContainEqual({
      uid: taskUid('T-3'),
      attrs: expect.objectContaining({ depth: 2 }),
      parents: [taskUid('T-1'), taskUid('T-2')],
    })
    const text =
      '@id("p") permit (principal, action, resource) when { context.task in Chaperone::Task::"T-1" };'
    const inRoot = compilePolicies([{ file: 'a.cedar', text }], { schema })
    if (!inRoot.ok) throw new Error(JSON.stringify(inRoot.problems))
    expect(inRoot.engine.authorize(request)).toMatchObject({ decision: 'allow', errors: [] })
    expect(inRoot.engine.authorize(build({}))).toMatchObject({ decision: 'deny', errors: [] })
  })

  test('gives arguments as text, and integers as numbers too', () => {
    const operation = call([
      ['path', '/data'],
      ['limit', 7],
      ['ratio', 0.5],
      ['huge', 2 ** 53],
      ['force', true],
      ['note', null],
    ])
    expect(tagsOf(build({ operation }))).toEqual([
      {
        path: '/data',
        limit: '7',
        ratio: '0.5',
        huge: '9007199254740992',
        force: 'true',
        note: 'null',
      },
      { limit: 7 },
    ])
  })

  test.each(['__entity', '__extn', '__expr', '__proto__', 'constructor', ''])(
    'takes the argument name "%s" for data',
    (name) => {
      const request = build({ operation: call([[name, 'unknown']]) })
      expect(Object.entries(tagsOf(request)[0] ?? {})).toEqual([[name, 'unknown']])
      expect(engine.authorize(request)).toMatchObject({ decision: 'allow', errors: [] })
    },
  )

  test('shows one text for two spellings, and refuses two names that become one', () => {
    const composed = '\u00e9'
    const decomposed = 'e\u0301'
    expect(tagsOf(build({ operation: call([['a', decomposed]]) }))[0]).toEqual({ a: composed })
    expect(
      reasonOf({
        operation: call([
          [composed, 1],
          [decomposed, 2],
        ]),
      }),
    ).toBe('two arguments have one name')
  })

  test.each<[string, Partial<CedarRequestInput>, string]>([
    [
      'lone surrogate in a path',
      { operation: http('GET', '/\udc00') },
      'the path is too long or not plain Unicode text',
    ],
    [
      'long path',
      { operation: http('GET', `/${'a'.repeat(16_384)}`) },
      'the path is too long or not plain Unicode text',
    ],
    [
      'long method',
      { operation: http('A'.repeat(2049)) },
      'the method is too long or not plain Unicode text',
    ],
    [
      'decomposed tool name',
      { operation: call([], 'e\u0301') },
      'the tool is too long or not plain Unicode text',
    ],
    [
      'lone surrogate in an MCP method',
      { operation: mcp({ type: 'notification', method: '\ud800' }) },
      'the MCP method is too long or not plain Unicode text',
    ],
    [
      'lone surrogate in an argument name',
      { operation: call([['\ud800', 1]]) },
      'an argument is not Unicode text',
    ],
    [
      'lone surrogate in an argument',
      { operation: call([['a', '\ud800']]) },
      'an argument is not Unicode text',
    ],
    [
      'long arguments',
      { operation: call([['a', 'x'.repeat(512 * 1024)]]) },
      'the arguments are too long',
    ],
    [
      'many arguments',
      { operation: call(Array.from({ length: 513 }, (_, i) => [`${i}`, i])) },
      'there are too many arguments',
    ],
    ['no time', { nowMs: NaN }, 'the time is not one'],
    ['time beyond dates', { nowMs: 8.64e15 + 2 }, 'the time is not one'],
    [
      'agent of many segments',
      { agent: { ...base().agent, id: `spiffe://example.org${'/a'.repeat(32)}` } },
      'the agent id has too many segments',
    ],
  ])('refuses, never cuts short: %s', (_, more, reason) => {
    expect(reasonOf(more)).toBe(reason)
  })

  test('builds, of any strings, either a refusal or what Cedar can take', () => {
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }))
    fc.assert(
      fc.property(text, text, text, (tool, name, value) => {
        const operation = call([[name, value]], tool)
        const built = buildCedarRequest(base({ operation }))
        if (!built.ok) return
        expect(engine.authorize(built.request)).toMatchObject({ decision: 'allow', errors: [] })
      }),
      { numRuns: 100 },
    )
    expect(engine.healthy).toBe(true)
  })
})

function base(more: Partial<CedarRequestInput> = {}): CedarRequestInput {
  return {
    agent: {
      id: names.agent,
      trustDomain: names.trustDomain,
      kind: 'jwt-svid',
      expiresAtMs: nowMs + 300_000,
      svidDigest: '0123456789abcdef',
    },
    chain: grantChain(grant),
    operation: http('GET'),
    upstream: { name: 'api', kind: 'mcp', origin: names.upstream, sensitivity: 'internal' },
    nowMs,
    ...more,
  }
}

function build(more: Partial<CedarRequestInput> = {}): CedarRequest {
  const built = buildCedarRequest(base(more))
  if (!built.ok) throw new Error(built.reason)
  return built.request
}

function reasonOf(more: Partial<CedarRequestInput>): string | undefined {
  const built = buildCedarRequest(base(more))
  return built.ok ? undefined : built.reason
}

/** The tags of the text arguments and of the integers. */
function tagsOf({ entities }: CedarRequest): readonly object[] {
  return entities.flatMap(({ tags }) => (tags ? [tags] : []))
}

function http(method: string, path: string = '/'): Operation {
  return { kind: 'http', method, path, hasQuery: false }
}

function call(
  args: readonly (readonly [string, ArgumentValue])[],
  tool: string = 'read',
): Operation {
  return mcp({ type: 'tools/call', id: 1, tool, args: new Map(args) })
}

function mcp(message: Extract<Operation, { kind: 'mcp' }>['message']): Operation {
  return { kind: 'mcp', method: 'POST', path: '/mcp', hasQuery: false, message }
}

function taskUid(id: string): object {
  return { type: 'Chaperone::Task', id }
}
