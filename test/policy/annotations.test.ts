import { describe, expect, test } from 'vitest'
import { compilePolicies } from '../../policy/cedar.ts'
import { decide } from '../../policy/decide.ts'
import { engineOf, http, input, readText } from '../kit/decide-input.ts'

const schema = readText('chaperone.cedarschema')
const rule = (annotations: string, effect = 'permit'): string =>
  `@id("a") ${annotations}\n${effect} (principal, action, resource);`

function complaintOf(text: string): string {
  const result = compilePolicies([{ file: 'a.cedar', text }], { schema })
  if (result.ok) result.engine[Symbol.dispose]()
  if (result.ok) return 'compiles'
  return result.problems
    .map(({ line, col, message, hint }) => `${line}:${col} ${message} (${hint})`)
    .join('\n')
}

describe('annotations', () => {
  test.each([
    [rule('@reson("x")'), '1:10 Unknown annotation @reson (did you mean @reason?)'],
    [
      rule('@owner("x")'),
      '1:10 Unknown annotation @owner (Known are @id, @reason, @severity, @mode, @stepup)',
    ],
    [
      rule('@reason("")'),
      '1:10 Expected at most 500 characters of @reason, and at least one (Write a sentence that the agent can act on)',
    ],
    [
      rule('@severity("urgent")'),
      '1:10 Expected low, medium, high, critical (Write @severity("high"))',
    ],
    [
      rule('@mode("dry-run")'),
      '1:10 Expected enforce or shadow (Write @mode("shadow"), or leave it out)',
    ],
    [rule('@mode'), '1:10 Expected enforce or shadow (Write @mode("shadow"), or leave it out)'],
    [rule('@stepup("finance")'), '1:10 Expected @stepup without a value (Write @stepup)'],
    [
      rule('@stepup', 'forbid'),
      '1:10 Expected @stepup on a permit (A forbid refuses: leave it out here)',
    ],
    [rule('@reason("x") @severity("low") @mode("enforce") @stepup'), 'compiles'],
  ])('are read or refused: %s', (text, expected) => expect(complaintOf(text)).toBe(expected))
})

describe('@stepup', () => {
  test('turns an allow into a demand for approval, with the reason for the model', () => {
    using engine = engineOf(
      `@id("team/reads") permit (principal, action in Chaperone::Action::"read", resource);
       @id("team/writes") @stepup @reason("A person approves each write.") @severity("high")
       permit (principal, action in Chaperone::Action::"write", resource);`,
    )
    expect(decide(input({ engine })).outcome).toBe('allow')
    expect(decide(input({ engine, operation: http('POST') }))).toEqual({
      outcome: 'step-up',
      code: 'approval-required',
      detail: 'a policy permits it with the approval of a person only',
      policyIds: ['team/writes'],
      reason: 'A person approves each write.',
      severity: 'high',
    })
  })

  test('is not overruled by a permit without it, and does not soften a forbid', () => {
    const both = `@id("all") permit (principal, action, resource);
      @id("asks") @stepup permit (principal, action in Chaperone::Action::"write", resource);`
    using engine = engineOf(both)
    expect(decide(input({ engine, operation: http('POST') })).outcome).toBe('step-up')
    using strict = engineOf(`${both} @id("no") forbid (principal, action, resource);`)
    expect(decide(input({ engine: strict, operation: http('POST') }))).toMatchObject({
      code: 'policy-denied',
      policyIds: ['no'],
    })
  })
})

describe('@mode("shadow")', () => {
  const text = `@id("all") permit (principal, action, resource);
    @id("candidate") @mode("shadow") forbid (principal, action, resource);`

  test('is checked and never enforced', () => {
    using engine = engineOf(text)
    expect(engine.policyIds).not.toContain('candidate')
    expect(decide(input({ engine })).outcome).toBe('allow')
    expect(complaintOf(text.replace('forbid (principal', 'forbid (principle'))).toContain('2:')
  })

  test('counts when the compiler is asked to take it in', () => {
    const compiled = compilePolicies([{ file: 'a.cedar', text }], { schema, withShadow: true })
    if (!compiled.ok) throw new Error(JSON.stringify(compiled.problems))
    using engine = compiled.engine
    expect(decide(input({ engine }))).toMatchObject({ outcome: 'deny', policyIds: ['candidate'] })
  })
})

describe('@severity', () => {
  test('gives a denial the highest of the policies that refused', () => {
    using engine = engineOf(
      `@id("a") @severity("low") forbid (principal, action, resource);
       @id("b") @severity("critical") forbid (principal, action, resource);
       @id("c") forbid (principal, action, resource);`,
    )
    expect(decide(input({ engine }))).toMatchObject({ severity: 'critical' })
  })
})
