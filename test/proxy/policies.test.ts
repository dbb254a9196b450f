import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Config } from '../../config/schema.ts'
import { decide } from '../../policy/decide.ts'
import {
  loadPolicies,
  loadPoliciesInBackground,
  policyDirectories,
  remarksOn,
  type Policies,
} from '../../proxy/policies.ts'
import { http, input, nowMs } from '../kit/decide-input.ts'

let root = ''
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'chaperone-policies-'))
  for (const name of ['now', 'next', 'tests']) mkdirSync(join(root, name))
  put('now/a.cedar', '@id("all") permit (principal, action, resource);')
})
afterEach(() => rmSync(root, { recursive: true }))

const put = (name: string, text: string): void => writeFileSync(join(root, name), text)
const policyOf = (more: Partial<Config['policy']> = {}): Config['policy'] => ({
  directory: join(root, 'now'),
  maxShadowPerSecond: 100,
  presets: [],
  unsafeObserveTasks: [],
  ...more,
})
const load = (more: Partial<Config['policy']> = {}): Policies =>
  loadPolicies(policyOf(more), { upstreams: new Map() })
const forbidWrites =
  '@id("no-writes") forbid (principal, action in Chaperone::Action::"write", resource);'

describe('loadPolicies() with shadow policies', () => {
  test('has none when there is nothing to try', () => {
    using policies = load()
    expect(policies.shadow).toBeUndefined()
  })

  test('asks those in force with their policies in shadow', () => {
    put('now/b.cedar', forbidWrites.replace('forbid', '@mode("shadow") forbid'))
    using policies = load()
    const asked = input({ engine: policies.engine, operation: http('POST') })
    const decision = decide(asked)
    expect(decision).toEqual({ outcome: 'allow', policyIds: ['all'] })
    expect(policies.shadow?.compare(decision, asked)).toEqual({
      outcome: 'deny',
      policyIds: ['no-writes'],
    })
    const read = input({ engine: policies.engine })
    expect(policies.shadow?.compare(decide(read), read)).toEqual({
      outcome: 'allow',
      policyIds: ['all'],
    })
  })

  test('asks those of the shadow directory in their place', () => {
    put('next/a.cedar', `@id("other") permit (principal, action, resource);${forbidWrites}`)
    using policies = load({ shadow: join(root, 'next') })
    const asked = input({ engine: policies.engine, operation: http('POST') })
    expect(policies.shadow?.compare(decide(asked), asked)?.outcome).toBe('deny')
    expect(policies.shadow?.policySetSha).not.toBe(policies.engine.policySetSha)
  })

  test('is not asked about what a gate in code refused', () => {
    put('now/b.cedar', forbidWrites.replace('forbid', '@mode("shadow") forbid'))
    using policies = load()
    const asked = input({ engine: policies.engine, operation: http('POST', '/elsewhere') })
    expect(policies.shadow?.compare(decide(asked), asked)).toBeUndefined()
  })

  test('skips what is beyond its share of a second, and not what it remembers', () => {
    put('now/b.cedar', forbidWrites.replace('forbid', '@mode("shadow") forbid'))
    using policies = load({ maxShadowPerSecond: 1 })
    const outcomeOf = (path: string, ms: number): string | undefined => {
      const asked = input({ engine: policies.engine, operation: http('GET', path), nowMs: ms })
      return policies.shadow?.compare(decide(asked), asked)?.outcome
    }
    const same = input({ engine: policies.engine })
    expect(policies.shadow?.compare(decide(same), same)?.outcome).toBe('allow')
    expect(policies.shadow?.compare(decide(same), same)?.outcome).toBe('allow')
    expect(outcomeOf('/v1/b', nowMs)).toBe('skipped')
    expect(outcomeOf('/v1/b', nowMs + 1000)).toBe('allow')
  })
})

describe('loadPolicies() with cases', () => {
  const cases = 'cases:\n  - { name: a write, request: POST /a, expect: deny, by: no-writes }\n'

  test('takes up a set of which each case holds', () => {
    put('now/b.cedar', forbidWrites)
    put('tests/a.test.yaml', cases)
    using policies = load({ tests: join(root, 'tests') })
    expect(policies.engine.policyIds).toContain('no-writes')
  })

  test('refuses a set of which a case does not hold, and names it', () => {
    put('tests/a.test.yaml', cases)
    expect(() => load({ tests: join(root, 'tests') })).toThrow(
      `Cases do not hold:\n${root}/tests/a.test.yaml: a write: expected deny, got allow by all`,
    )
  })

  test('refuses a file of cases that cannot be read, and a directory without one', () => {
    put('tests/a.test.yaml', cases.replace('expect', 'expct'))
    expect(() => load({ tests: join(root, 'tests') })).toThrow('Unknown setting')
    rmSync(join(root, 'tests', 'a.test.yaml'))
    expect(() => load({ tests: join(root, 'tests') })).toThrow('Expected *.test.yaml files')
  })
})

describe('loadPoliciesInBackground()', () => {
  test('gives what loadPolicies() gives', async () => {
    put('now/b.cedar', forbidWrites.replace('forbid', '@mode("shadow") forbid'))
    put('now/c.cedar', forbidWrites.replace('no-writes', 'x') + forbidWrites.replace('no-w', 'y-w'))
    using here = load()
    using there = await loadPoliciesInBackground(policyOf(), { upstreams: new Map() })
    expect(there.engine.policySetSha).toBe(here.engine.policySetSha)
    expect(there.shadow?.policySetSha).toBe(here.shadow?.policySetSha)
    expect(there.findings).toEqual(here.findings)
    expect(there.findings).not.toEqual([])
    const asked = input({ engine: there.engine })
    expect(there.shadow?.compare(decide(asked), asked)?.outcome).toBe('allow')
  })

  test('refuses what loadPolicies() refuses, in its words', async () => {
    put('tests/a.test.yaml', 'cases:\n  - { name: a write, request: POST /a, expect: deny }\n')
    const policy = policyOf({ tests: join(root, 'tests') })
    await expect(loadPoliciesInBackground(policy, { upstreams: new Map() })).rejects.toThrow(
      `Cases do not hold:\n${root}/tests/a.test.yaml: a write: expected deny, got allow by all`,
    )
  })
})

describe('remarksOn()', () => {
  test('names each route and task that is observed, and what is probably a mistake', () => {
    put('now/b.cedar', `${forbidWrites}${forbidWrites.replace('no-writes', 'twice')}`)
    using policies = load()
    const policy = policyOf({ unsafeObserveTasks: [{ task: 'T-1', until: nowMs + 1000 }] })
    const route = { prefix: '/api', upstream: 'api', unsafeObserveUntil: nowMs }
    expect(remarksOn(policies, { routes: [route], policy })).toEqual([
      'route "/api": what policies refuse is allowed until 2026-01-01T00:00:00.000Z (unsafeObserveUntil)',
      'task "T-1": what policies refuse is allowed until 2026-01-01T00:00:01.000Z (unsafeObserveTasks)',
      expect.stringContaining('[unreachable-forbid]'),
    ])
  })
})

describe('policyDirectories()', () => {
  test('lists all that a change may come from', () => {
    const policy = {
      directory: '/a',
      shadow: '/b',
      tests: '/c',
      maxShadowPerSecond: 1,
      presets: [],
      unsafeObserveTasks: [],
    }
    expect(policyDirectories(policy)).toEqual(['/a', '/b', '/c'])
  })
})
