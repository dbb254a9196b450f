import { describe, expect, test } from 'vitest'
import { allowsTool, decide } from '../../policy/decide.ts'
import {
  agent,
  call,
  engineOf,
  http,
  input,
  list,
  mcp,
  nowMs,
  record,
  viewOf,
} from '../kit/decide-input.ts'

const forbids = `@id("all") permit (principal, action, resource);
  @id("no") forbid (principal, action in Chaperone::Action::"write", resource);`
const until = { unsafeObserveUntilMs: nowMs + 1000 }

describe('decide() on an observed route', () => {
  test('allows what the policies refuse, and says what they said', () => {
    using engine = engineOf(forbids)
    expect(decide(input({ engine, operation: http('POST'), ...until }))).toEqual({
      outcome: 'allow',
      policyIds: [],
      observed: { outcome: 'deny', policyIds: ['no'] },
    })
    expect(decide(input({ engine, ...until }))).toEqual({ outcome: 'allow', policyIds: ['all'] })
  })

  test('refuses again from its end on', () => {
    using engine = engineOf(forbids)
    const asked = input({ engine, operation: http('POST'), ...until })
    expect(decide({ ...asked, nowMs: nowMs + 999 }).outcome).toBe('allow')
    expect(decide({ ...asked, nowMs: nowMs + 1000 })).toMatchObject({ code: 'policy-denied' })
    expect(decide({ ...asked, unsafeObserveUntilMs: Number.NaN }).outcome).toBe('deny')
  })

  test.each([
    ['a revocation', { view: viewOf([record({ subject: 'task:task-1' })]) }, 'task-terminated'],
    ['a stale view', { view: viewOf([], Number.POSITIVE_INFINITY) }, 'control-plane-stale'],
    ['an expired identity', { agent: { ...agent, expiresAtMs: nowMs } }, 'identity-invalid'],
    ['a path that no grant has', { operation: http('POST', '/other') }, 'policy-denied'],
    [
      'a sensitivity that no grant has',
      { upstream: { ...mcp, sensitivity: 'restricted' } },
      'policy-denied',
    ],
  ] as const)('still refuses %s', (_what, more, code) => {
    using engine = engineOf(forbids)
    expect(decide(input({ engine, ...until, ...more }))).toMatchObject({ outcome: 'deny', code })
  })

  test('still refuses when a policy fails, or cannot be asked', () => {
    using engine = engineOf(
      `@id("f") forbid (principal, action, resource) when { context.sensitivity + 9223372036854775807 > 0 };`,
    )
    expect(decide(input({ engine, ...until }))).toMatchObject({ outcome: 'deny', undecided: true })
    const operation = call('read_file', [['path', '\ud800']])
    expect(decide(input({ engine, operation, upstream: mcp, ...until }))).toMatchObject({
      outcome: 'deny',
      undecided: true,
    })
  })

  test('still refuses what a policy of the product forbids', () => {
    using engine = engineOf('@id("system/no") forbid (principal, action, resource);')
    expect(decide(input({ engine, ...until }))).toMatchObject({
      outcome: 'deny',
      policyIds: ['system/no'],
    })
  })

  test('shows a tool that a call would reach', () => {
    using engine = engineOf(forbids)
    const asked = { ...input({ engine, operation: list(), upstream: mcp }), tool: 'lookup' }
    expect(allowsTool(asked)).toBe(false)
    expect(allowsTool({ ...asked, ...until })).toBe(true)
  })
})
