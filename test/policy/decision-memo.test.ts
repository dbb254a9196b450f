import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decide, type DecideInput } from '../../policy/decide.ts'
import { DecisionMemo } from '../../policy/decision-memo.ts'
import { grantChain } from '../../policy/grant.ts'
import type { Operation } from '../../policy/types.ts'
import {
  agent,
  engineOf,
  grant,
  http,
  input,
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

describe('decide() with a memo', () => {
  test('answers every question as one without a memory', () => {
    const used = engineOf(policies)
    const outcomes = new Set<string>()
    fc.assert(
      fc.property(fc.array(question, { minLength: 80, maxLength: 160 }), (questions) => {
        // In order of time: the memory lasts as long as its second.
        const ordered = questions.toSorted((one, other) => (one.nowMs ?? 0) - (other.nowMs ?? 0))
        for (const asked of ordered) {
          const fresh = { ...used, healthy: true, memo: new DecisionMemo() }
          const decision = decide(input({ ...asked, engine: used }))
          outcomes.add(decision.outcome)
          expect(decision).toEqual(decide(input({ ...asked, engine: fresh })))
        }
      }),
      { numRuns: 12, seed: 20261124 },
    )
    expect([...outcomes].toSorted()).toEqual(['allow', 'deny'])
  })

  test('asks the engine once for the same question in one second', () => {
    const engine = engineOf(policies)
    let asked = 0
    const counting = {
      ...engine,
      healthy: true,
      memo: new DecisionMemo(),
      authorize: (request: Parameters<typeof engine.authorize>[0]) => {
        asked += 1
        return engine.authorize(request)
      },
    }
    const one = input({ engine: counting, operation: get('/v1/a') })
    for (let n = 0; n < 5; n++) decide(one)
    expect(asked).toBe(1)
    decide({ ...one, nowMs: nowMs + 1_000 })
    expect(asked).toBe(2)
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
    expect(engine.memo.find(one)).toBeUndefined()
  })
})

describe('DecisionMemo', () => {
  test('keep() holds no more than its bound', () => {
    const memo = new DecisionMemo()
    const one = input()
    const allow = { outcome: 'allow', policyIds: ['x'] } as const
    for (let n = 0; n <= 4096; n++) memo.keep({ ...one, operation: get(`/${n}`) }, allow)
    expect(memo.find({ ...one, operation: get('/0') })).toBeUndefined()
    expect(memo.find({ ...one, operation: get('/4096') })).toEqual(allow)
  })
})

function get(path: string): Operation {
  return { kind: 'http', method: 'GET', path, hasQuery: false }
}
