import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { PolicyEngine } from '../../policy/cedar.ts'
import { decide } from '../../policy/decide.ts'
import { DecisionMemo } from '../../policy/decision-memo.ts'
import { codeOfRevocation } from '../../policy/revocation-code.ts'
import type { ArgumentValue, Operation, Upstream } from '../../policy/types.ts'
import {
  agent,
  answer,
  api,
  call,
  chainOf,
  engineOf,
  grant,
  http,
  input,
  list,
  mcp,
  nowMs,
  readText,
  record,
  rest,
  shipped,
  viewOf,
  websocket,
} from '../kit/decide-input.ts'
import { names } from '../kit/tokens.ts'

describe('decide()', () => {
  test('allows what the grant allows, by the policy that says so', () => {
    expect(decide(input())).toEqual({ outcome: 'allow', policyIds: ['default/as-granted'] })
  })

  test('reports a revocation first, whatever else is wrong', () => {
    const decision = decide(
      input({
        view: viewOf([record({ subject: 'task:task-1' })], Infinity),
        nowMs: nowMs + 1e9,
        upstream: { ...rest, sensitivity: 'restricted' },
      }),
    )
    expect(decision).toMatchObject({
      code: 'task-terminated',
      detail: 'revoke r1 of task:task-1',
      revocation: { rid: 'r1' },
    })
  })

  test('reports an old view before the expiry', () => {
    expect(decide(input({ view: viewOf([], Infinity), nowMs: nowMs + 1e9 }))).toMatchObject({
      code: 'control-plane-stale',
      detail: 'the revocation view was never complete, of at most 60000 ms for reads',
    })
  })

  test('reports the expiry of the task before that of the identity, and both before sensitivity', () => {
    const upstream: Upstream = { ...rest, sensitivity: 'restricted' }
    const expired = { ...agent, expiresAtMs: nowMs }
    expect(decide(input({ upstream, agent: expired, nowMs: nowMs + 600_000 }))).toMatchObject({
      code: 'task-expired',
    })
    expect(decide(input({ upstream, agent: expired }))).toMatchObject({ code: 'identity-invalid' })
  })

  test('expires in the very millisecond', () => {
    const late = { ...agent, expiresAtMs: Infinity }
    expect(decide(input({ agent: late, nowMs: nowMs + 599_999 })).outcome).toBe('allow')
    expect(decide(input({ agent: late, nowMs: nowMs + 600_000 }))).toMatchObject({
      code: 'task-expired',
      detail: 'a grant of the task has expired',
    })
  })

  test('reports sensitivity before the destinations, with the link that falls short', () => {
    const links = [grant({ jti: 'root' }), grant({ jti: 'child', sensitivity: 'public' })] as const
    const decision = decide(input({ chain: chainOf(links), operation: http('GET', '/no') }))
    expect(decision).toMatchObject({
      code: 'policy-denied',
      detail: 'grant child: its sensitivity public is below internal of the upstream',
    })
  })

  test('refuses what one link of the chain does not allow', () => {
    const narrow = grant({ jti: 'root', destinations: [api({ paths: ['/other/**'] })] })
    const decision = decide(input({ chain: chainOf([narrow, grant({ jti: 'child' })]) }))
    expect(decision).toMatchObject({
      code: 'policy-denied',
      detail: 'grant root: no destination of it allows this',
    })
  })

  test.each<[string, Operation, Upstream, number, string]>([
    ['read on a fresh view', http('GET'), rest, 60_000, 'allow'],
    ['read on an old view', http('HEAD'), rest, 60_001, 'deny'],
    ['write on a fresh view', http('POST'), rest, 5_000, 'allow'],
    ['write on an old view', http('POST'), rest, 5_001, 'deny'],
    ['WebSocket on an old view', websocket(), rest, 5_001, 'deny'],
    ['tool call on an old view', call('read_file'), mcp, 5_001, 'deny'],
    ['MCP answer on an old view', answer(), mcp, 5_001, 'deny'],
    ['MCP request on the same view', list(), mcp, 5_001, 'allow'],
    ['read on a view of no age', http('GET'), rest, NaN, 'deny'],
  ])('bounds the age of the view: %s', (_, operation, upstream, ageMs, outcome) => {
    const decision = decide(input({ operation, upstream, view: viewOf([], ageMs) }))
    expect(decision).toMatchObject(
      outcome === 'deny' ? { outcome, code: 'control-plane-stale' } : { outcome },
    )
  })

  test.each([
    ['upstream:files', 'task-terminated'],
    ['tool:files/read_file', 'task-terminated'],
    [`agent-prefix:spiffe://${names.trustDomain}/agent`, 'agent-quarantined'],
    ['all', 'task-terminated'],
  ])('checks the subject %s', (subject, code) => {
    const view = viewOf([record({ subject })])
    const decision = decide(input({ operation: call('read_file'), upstream: mcp, view }))
    expect(decision).toMatchObject({ code, revocation: { subject } })
  })

  test('leaves other tools and upstreams alone', () => {
    const view = viewOf([record({ subject: 'tool:files/x' }), record({ subject: 'upstream:api' })])
    expect(decide(input({ operation: call('read_file'), upstream: mcp, view })).outcome).toBe(
      'allow',
    )
  })

  test('names what ends the upstream rather than the pause of the task', () => {
    const view = viewOf([
      record({ subject: 'task:task-1', op: 'pause' }),
      record({ subject: 'upstream:api' }),
    ])
    expect(decide(input({ view }))).toMatchObject({ code: 'task-terminated' })
  })

  test('refuses with the id and the reason of the policy that forbids', () => {
    using engine = engineOf(
      `${readText('default.cedar')}
      @id("team/no-admin") @reason("Admin paths are for people.")
      forbid (principal in Chaperone::AgentGroup::"spiffe://example.org/agent", action in Chaperone::Action::"read", resource)
      when { context.path like "/admin*" };`,
    )
    expect(decide(input({ engine, operation: http('GET', '/admin/x') }))).toEqual({
      outcome: 'deny',
      code: 'policy-denied',
      detail: 'a policy forbids it',
      policyIds: ['team/no-admin'],
      reason: 'Admin paths are for people.',
    })
    expect(decide(input({ engine })).outcome).toBe('allow')
  })

  test('refuses when no policy permits', () => {
    using engine = engineOf('')
    expect(decide(input({ engine }))).toMatchObject({
      code: 'policy-denied',
      detail: 'no policy permits it',
      policyIds: [],
    })
  })

  test('refuses when a policy fails', () => {
    using engine = engineOf(
      `${readText('default.cedar')}
      @id("team/sum") forbid (principal, action, resource) when { context.sensitivity + 9223372036854775807 > 0 };`,
    )
    expect(decide(input({ engine }))).toMatchObject({
      code: 'policy-denied',
      detail: 'policy evaluation error: team/sum',
    })
  })

  test('refuses an allow that no policy determined', () => {
    const unfounded = { decision: 'allow', policyIds: [], errors: [] } as const
    const engine: PolicyEngine = {
      ...shipped,
      healthy: true,
      memo: new DecisionMemo(),
      authorize: () => unfounded,
      authorizeSlice: () => unfounded,
    }
    expect(decide(input({ engine }))).toMatchObject({ detail: 'allowed by no policy' })
  })

  test('decides by the arguments of a tool', () => {
    using engine = engineOf(
      `@id("team/files") permit (principal, action == Chaperone::Action::"tools/call", resource)
      when { context.tool == "read_file" && context.args.hasTag("path") && context.args.getTag("path") like "/data/*" }
      unless { context.integers.hasTag("limit") && context.integers.getTag("limit") > 100 };`,
    )
    const outcome = (args: readonly [string, ArgumentValue][]): string =>
      decide(input({ engine, upstream: mcp, operation: call('read_file', args) })).outcome
    expect(outcome([['path', '/data/a']])).toBe('allow')
    expect(outcome([['path', '/etc/passwd']])).toBe('deny')
    expect(outcome([])).toBe('deny')
    expect(
      outcome([
        ['path', '/data/a'],
        ['limit', 101],
      ]),
    ).toBe('deny')
    expect(
      outcome([
        ['path', '/data/a'],
        ['limit', 100],
      ]),
    ).toBe('allow')
  })

  test('refuses a request that policy cannot be shown', () => {
    const operation = call('read_file', [['path', '\ud800']])
    expect(decide(input({ upstream: mcp, operation }))).toMatchObject({
      code: 'policy-denied',
      detail: 'cannot be put to policy: an argument is not Unicode text',
    })
  })

  test('never throws on arguments of any kind, and keeps the engine well', () => {
    const anyUnits = fc
      .array(fc.integer({ min: 0, max: 0xffff }))
      .map((units) => String.fromCharCode(...units))
    const text = fc.oneof(fc.string({ unit: 'binary' }), anyUnits)
    const value = fc.oneof(text, fc.double(), fc.integer(), fc.boolean(), fc.constant(null))
    const name = fc.oneof(text, fc.constantFrom('__entity', '__extn', '__expr', '__proto__', ''))
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value)), (args) => {
        const decision = decide(input({ upstream: mcp, operation: call('read_file', args) }))
        if (decision.outcome === 'allow') return
        expect(decision.detail).toMatch(/^cannot be put to policy: /)
      }),
      { numRuns: 100 },
    )
    expect(shipped.healthy).toBe(true)
  })
})

describe('codeOfRevocation()', () => {
  test.each([
    ['pause', `agent:${names.agent}`, 'task-paused'],
    ['quarantine', 'task:t', 'agent-quarantined'],
    ['revoke', `agent:${names.agent}`, 'agent-quarantined'],
    ['revoke', 'trust-domain:example.org', 'agent-quarantined'],
    ['revoke', 'grant:https://a#g', 'task-terminated'],
    ['revoke', 'all', 'task-terminated'],
  ] as const)('gives for %s of %s: %s', (op, subject, code) => {
    expect(codeOfRevocation(record({ op, subject }))).toBe(code)
  })
})
