import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { askPolicies } from '../../policy/ask-policies.ts'
import type { CedarRequest } from '../../policy/cedar-request.ts'
import type { PolicyEngine } from '../../policy/cedar.ts'
import { decide, type DecideInput } from '../../policy/decide.ts'
import { DecisionMemo, type MemoCell } from '../../policy/decision-memo.ts'
import { grantChain } from '../../policy/grant.ts'
import { readOpenApi } from '../../policy/openapi.ts'
import { readToolTypes } from '../../policy/tool-types.ts'
import type { ArgumentValue, McpMessage, Operation } from '../../policy/types.ts'
import {
  agent,
  engineOf,
  grant,
  http,
  input,
  mcp,
  nowMs,
  record,
  rest,
  viewOf,
} from '../kit/decide-input.ts'
import { names } from '../kit/tokens.ts'

/** Speaks of everything that a question can differ in, so that each must be part of what is remembered. */
const policies = `
  @id("a") permit (principal == Chaperone::Agent::"${names.agent}", action in [Chaperone::Action::"read"], resource)
  when { context.path like "/v1/a*" && !context.has_query };
  @id("b") permit (principal, action, resource == Chaperone::Upstream::"api")
  when { context.method == "POST" && context.purpose == "invoice-check" };
  @id("late") forbid (principal, action, resource)
  when { context.now > datetime("2026-01-01T00:00:01.500Z") };
`

const chains = [grantChain(grant()), grantChain(grant({ purpose: 'other' }))] as const
const agents = [agent, { ...agent, id: `${names.agent}2` as const }] as const
const upstreams = [rest, { ...rest, name: 'other' }] as const

const question: fc.Arbitrary<Partial<DecideInput>> = fc.record({
  chain: fc.constantFrom(...chains),
  agent: fc.constantFrom(...agents),
  upstream: fc.constantFrom(...upstreams),
  nowMs: fc.constantFrom(nowMs, nowMs + 900, nowMs + 2_100),
  operation: fc.record({
    kind: fc.constant('http' as const),
    method: fc.constantFrom('GET', 'POST'),
    path: fc.constantFrom('/v1/a', '/v1/b'),
    hasQuery: fc.boolean(),
  }),
})

/** `FUZZ_PAIRS` as in policy-fuzz.test.ts, of which this asks fewer: its engines are whole ones. */
const pairs = Number(process.env['FUZZ_PAIRS'] ?? 4_000) / 4

const conditions = [
  'context.path like "/v1/*"',
  'context.method == "GET"',
  'context.has_query',
  'context.now > datetime("2026-01-01T00:00:01Z")',
  'context.purpose == "invoice-check"',
  'context.task.depth < 1 && context.task.approvers.contains("https://a.example")',
  'context.task has on_behalf_of',
  'context.sensitivity + context.task.sensitivity > 1',
  'principal.trust_domain == "example.org"',
  'principal in Chaperone::AgentGroup::"spiffe://example.org/agent"',
  'resource.kind == "mcp" || resource.sensitivity > 0',
  'action in Chaperone::Action::"read"',
  'resource.sensitivity * 9223372036854775807 > 5',
  '{a: principal, b: context.path}.a == principal',
] as const
const callConditions = [
  'context.args.hasTag("a")',
  'context.args.hasTag(context.tool) && context.args.getTag(context.tool) == "1"',
  'context.args.hasTag("a") && context.args.getTag("a") like "1*"',
  'context.integers.hasTag("a") && context.integers.getTag("a") > 1',
  'Chaperone::Arguments::"args".hasTag("b")',
  'context.listing',
  'context.tool == "a"',
] as const
const typedConditions = [
  'context.operation == Chaperone::Operation::"api/one"',
  'context.operation == Chaperone::Operation::"undescribed"',
  'context.typed has "api/one"',
  'context.typed has "api/one" && context.typed["api/one"].id > 1',
  'context.typed has "api/one" && context.typed["api/one"].id * 9223372036854775807 > 5',
  'context.typed has "api/text" && context.typed["api/text"].id like "*1"',
] as const
const typedCallConditions = [
  'context.typed has "files/a"',
  'context.typed has "files/a" && context.typed["files/a"] has b && context.typed["files/a"].b == "1"',
  'context.typed has "files/a" && context.typed["files/a"] has a && context.typed["files/a"].a > 1',
  'context.typed has "files/b" && context.typed["files/b"].a * 9223372036854775807 > 5',
] as const
const scopes = [
  'principal, action, resource',
  'principal, action in Chaperone::Action::"read", resource',
  'principal, action in Chaperone::Action::"write", resource',
  'principal, action, resource == Chaperone::Upstream::"api"',
  `principal == Chaperone::Agent::"${names.agent}", action, resource`,
] as const
const effect = fc.constantFrom('permit', 'permit', 'forbid')
const policyText = fc.oneof(
  fc
    .tuple(effect, fc.constantFrom(...scopes), fc.constantFrom(...conditions))
    .map(([kind, scope, condition]) => `${kind} (${scope}) when { ${condition} };`),
  fc
    .tuple(effect, fc.constantFrom(...callConditions, ...typedCallConditions))
    .map(
      ([kind, condition]) =>
        `${kind} (principal, action == Chaperone::Action::"tools/call", resource) when { ${condition} };`,
    ),
  fc
    .tuple(effect, fc.constantFrom(...typedConditions))
    .map(
      ([kind, condition]) =>
        `${kind} (principal, action in [Chaperone::Action::"http.read", Chaperone::Action::"http.write"], resource) when { ${condition} };`,
    ),
)

/** What the files of upstreams declare: every upstream has tools and operations, most have none. */
const idIn = (name: string, type: string): object => ({ name, in: 'path', schema: { type } })
const described = readOpenApi(
  {
    openapi: '3.1.0',
    paths: {
      '/v1/{id}': {
        get: { operationId: 'one', parameters: [idIn('id', 'integer')] },
        post: { operationId: 'text', parameters: [idIn('id', 'string')] },
      },
    },
  },
  { basePath: '' },
)
const long = { type: 'integer' }
const declared = readToolTypes({
  tools: [
    { name: 'a', inputSchema: { properties: { a: long, b: { type: 'string' } } } },
    { name: 'b', inputSchema: { properties: { a: long }, required: ['a'] } },
  ],
})
if (!described.ok || !declared.ok) throw new Error('not as the schemas demand')
const none = { tools: new Map(), operations: new Map() }
const typedUpstreams = [
  { ...rest, ...none, operations: described.operations },
  { ...rest, ...none, name: 'other' },
  { ...mcp, ...none, tools: declared.tools },
] as const
const policySet = fc.array(policyText, { minLength: 1, maxLength: 6 })
const path = fc.constantFrom('/v1/a', '/v1/b', '/', '/v1/1', '/v1/2', '/v1/02')
const argument = fc.oneof(fc.constantFrom('1', 'x', null, true), fc.integer({ min: 0, max: 3 }))
const toolCall = fc
  .record({
    tool: fc.constantFrom('a', 'b'),
    args: fc.dictionary(fc.constantFrom('a', 'b', 'c', '__proto__', 'toString'), argument),
  })
  .map(({ tool, args }) => call(args, tool))
const anyOperation: fc.Arbitrary<Operation> = fc.oneof(
  fc
    .tuple(fc.constantFrom('GET', 'POST', 'DELETE'), path, fc.boolean())
    .map(([method, at, hasQuery]) => ({ kind: 'http', method, path: at, hasQuery }) as const),
  fc
    .tuple(path, fc.boolean())
    .map(([at, hasQuery]) => ({ kind: 'websocket', method: 'GET', path: at, hasQuery }) as const),
  fc
    .constantFrom('tools/list', 'ping')
    .map((method) => mcpOperation({ type: 'request', id: 1, method })),
  fc.constant(mcpOperation({ type: 'response', id: 1 })),
  toolCall,
)
const anyQuestion = fc.record({
  chain: fc.constantFrom(
    ...chains,
    grantChain(grant({ onBehalfOf: { iss: 'https://i', sub: 's' } })),
  ),
  agent: fc.constantFrom(...agents),
  upstream: fc.constantFrom(...typedUpstreams),
  nowMs: fc.constantFrom(nowMs, nowMs + 900, nowMs + 2_100),
  operation: anyOperation,
  listing: fc.boolean(),
})

describe('decide() with a memo', () => {
  test('answers every question as one without a memory', () => {
    const used = engineOf(policies)
    const plain = engineOf(policies)
    plain.memo.turnOff()
    const outcomes = new Set<string>()
    fc.assert(
      fc.property(fc.array(question, { minLength: 80, maxLength: 160 }), (questions) => {
        for (const asked of questions) {
          const decision = decide(input({ ...asked, engine: used }))
          outcomes.add(decision.outcome)
          expect(decision).toEqual(decide(input({ ...asked, engine: plain })))
        }
      }),
      { numRuns: 8, seed: 20261124, endOnFailure: true },
    )
    expect([...outcomes].toSorted()).toEqual(['allow', 'deny'])
  })

  test(
    'answers as all policies do on the whole request, for policies and questions of every kind',
    () => {
      const outcomes = new Set<string>()
      fc.assert(
        fc.property(
          policySet,
          fc.array(anyQuestion, { minLength: 40, maxLength: 60 }),
          (texts, asked) => {
            const text = texts.map((one, n) => `@id("p${n}") ${one}`).join('\n')
            using used = engineOf(text, typedUpstreams)
            using plain = engineOf(text, typedUpstreams)
            plain.memo.turnOff()
            // Each twice: once to be remembered.
            for (const one of [...asked, ...asked]) {
              const decision = askPolicies({ ...one, engine: used })
              outcomes.add(decision.outcome === 'allow' ? 'allow' : decision.detail)
              expect(decision).toEqual(askPolicies({ ...one, engine: plain }))
            }
            expect(used.memo.isOn).toBe(true)
          },
        ),
        { numRuns: Math.ceil(pairs / 100), seed: 20261125, endOnFailure: true },
      )
      expect(outcomes).toContain('allow')
      expect(outcomes).toContain('a policy forbids it')
    },
    60_000 + pairs * 20,
  )

  test('asks the engine once for what looks the same to the policies', () => {
    const { engine, asked } = counting(engineOf(policies))
    const one = input({ engine, operation: get('/v1/a') })
    for (let n = 0; n < 5; n++) decide(one)
    expect(asked()).toBe(1)
    decide({ ...one, nowMs: nowMs + 999 })
    expect(asked()).toBe(1)
    decide({ ...one, nowMs: nowMs + 1_000 })
    expect(asked()).toBe(2)
  })

  test('holds an answer that does not depend on time or path, whatever these are', () => {
    const { engine, asked } = counting(
      engineOf('@id("r") permit (principal, action, resource) when { context.method == "GET" };'),
    )
    const one = input({ engine, operation: get('/v1/a') })
    for (let n = 0; n < 5; n++) {
      decide({ ...one, nowMs: nowMs + n * 10_000, operation: get(`/v1/${n}`) })
    }
    expect(asked()).toBe(1)
  })

  test('tells tool calls apart by the arguments that a policy reads, and by no others', () => {
    const { engine, asked } = counting(
      engineOf(`@id("t") permit (principal, action == Chaperone::Action::"tools/call", resource)
        when { context.integers.hasTag("n") && context.integers.getTag("n") > 3 };`),
    )
    const one = input({ engine, upstream: mcp })
    const outcomeOf = (args: Readonly<Record<string, ArgumentValue>>) =>
      askPolicies({ ...one, operation: call(args) }).outcome
    expect([
      outcomeOf({ n: 5 }),
      outcomeOf({ n: 2 }),
      outcomeOf({ n: '5' }),
      outcomeOf({}),
    ]).toEqual(['allow', 'deny', 'deny', 'deny'])
    expect(asked()).toBe(3)
    expect(outcomeOf({ n: 5, other: 'x' })).toBe('allow')
    expect(asked()).toBe(3)
  })

  test('tells tool calls apart by any argument, once a policy computes the name of one', () => {
    const engine = engineOf(`
      @id("t") permit (principal, action == Chaperone::Action::"tools/call", resource)
      when { context.args.hasTag(context.tool) };`)
    const one = input({ engine, upstream: mcp })
    const outcomes = [{ t: 1 }, { u: 1 }, {}, { t: 2 }].map(
      (args) => askPolicies({ ...one, operation: call(args) }).outcome,
    )
    expect(outcomes).toEqual(['allow', 'deny', 'deny', 'allow'])
  })

  test('refuses what cannot be shown to policy, also where the policies do not look', () => {
    const engine = engineOf('@id("r") permit (principal, action, resource);')
    const one = input({ engine, operation: get('/v1/a') })
    expect(askPolicies(one).outcome).toBe('allow')
    expect(askPolicies({ ...one, operation: get('/v1/\ud800') })).toMatchObject({
      detail: 'cannot be put to policy: the path is too long or not plain Unicode text',
    })
  })

  test('denies for good when the plain way says otherwise, and takes no short cut again', () => {
    const results: string[] = []
    const engine = engineOf('@id("r") permit (principal, action, resource);')
    const wrong = { decision: 'allow', policyIds: ['other'], errors: [] } as const
    const lying = {
      ...engine,
      healthy: true,
      memo: new DecisionMemo(),
      observer: { ...engine.observer, selfChecked: (result: string) => void results.push(result) },
      authorizeSlice: () => wrong,
    }
    const one = input({ engine: lying, operation: get('/v1/a') })
    // Nor is it passed over where the policies' own answers would be.
    expect(decide({ ...one, unsafeObserveUntilMs: nowMs + 1 })).toMatchObject({
      detail: 'the policy engine contradicted itself',
    })
    expect(results).toEqual(['different'])
    expect(lying.memo.isOn).toBe(false)
    expect(decide(one)).toEqual({ outcome: 'allow', policyIds: ['r'] })
  })

  test('makes one decision in 1024 again in the plain way, a remembered one too', () => {
    const engine = engineOf('@id("r") permit (principal, action, resource);')
    let plain = 0
    const counted = {
      ...engine,
      healthy: true,
      memo: new DecisionMemo(),
      authorize: (request: CedarRequest) => {
        plain += 1
        return engine.authorize(request)
      },
    }
    const one = input({ engine: counted, operation: get('/v1/a') })
    for (let n = 0; n < 2_049; n++) decide(one)
    expect(plain).toBe(3)
  })

  test('never hides a revocation, an old view or an expiry', () => {
    const engine = engineOf(policies)
    const one = input({ engine, operation: get('/v1/a') })
    expect(decide(one).outcome).toBe('allow')
    const revoked = viewOf([record({ subject: `task:${one.chain.leaf.txn}` })])
    expect(decide({ ...one, view: revoked })).toMatchObject({ code: 'task-terminated' })
    expect(decide({ ...one, view: viewOf([], Infinity) })).toMatchObject({
      code: 'control-plane-stale',
    })
    const expired = { ...one.chain, expiresAtMs: nowMs }
    expect(decide({ ...one, chain: expired })).toMatchObject({ code: 'task-expired' })
  })

  test('never keeps the answer of a policy that failed', () => {
    const engine = engineOf(`
      @id("fails") permit (principal, action in [Chaperone::Action::"read"], resource)
      when { resource.sensitivity * 9223372036854775807 > 5 };`)
    const one = input({
      engine,
      operation: http('GET'),
      upstream: { ...rest, sensitivity: 'restricted' },
      chain: grantChain(grant({ sensitivity: 'restricted' })),
    })
    expect(decide(one)).toMatchObject({
      code: 'policy-denied',
      detail: 'policy evaluation error: fails',
    })
    expect(engine.memo.find(one, 'http.read')?.decisions.size).toBe(0)
  })
})

describe('DecisionMemo', () => {
  test('keep() holds no more than its bound', () => {
    const memo = new DecisionMemo()
    const slice = { policies: [], observations: new Map() }
    const allow = { outcome: 'allow', policyIds: ['x'] } as const
    const open = (): MemoCell => memo.open(input(), { action: 'http.read', slice })
    const cell = open()
    const subject = input()
    memo.open(subject, { action: 'http.read', slice })
    for (let n = 0; n < 4096; n++) memo.keep(cell, { key: `${n}`, decision: allow })
    expect(cell.decisions.size).toBe(4096)
    expect(memo.find(subject, 'http.read')).toBeDefined()
    memo.keep(cell, { key: 'more', decision: allow })
    expect(memo.find(subject, 'http.read')).toBeUndefined()
    memo.keep(open(), { key: 'x'.repeat(513), decision: allow })
    expect(open().decisions.size).toBe(0)
  })
})

function counting(engine: PolicyEngine): { engine: PolicyEngine; asked: () => number } {
  let count = 0
  return {
    engine: {
      ...engine,
      healthy: true,
      memo: new DecisionMemo(),
      authorizeSlice: (...[slice, request]: Parameters<typeof engine.authorizeSlice>) => {
        count += 1
        return engine.authorizeSlice(slice, request)
      },
    },
    asked: () => count,
  }
}

function call(args: Readonly<Record<string, ArgumentValue>>, tool = 't'): Operation {
  return mcpOperation({ type: 'tools/call', id: 1, tool, args: new Map(Object.entries(args)) })
}

function mcpOperation(message: McpMessage): Operation {
  return { kind: 'mcp', method: 'POST', path: '/mcp', hasQuery: false, message }
}

function get(target: string): Operation {
  return { kind: 'http', method: 'GET', path: target, hasQuery: false }
}
