import { describe, expect, test } from 'vitest'
import { CedarInstance } from '../../policy/cedar-instance.ts'

const deep = `permit (principal, action, resource) when { ${'('.repeat(2_000)}true${')'.repeat(2_000)} };`

describe('CedarInstance', () => {
  test('call() is spent at once by what breaks it, and its image is none', () => {
    const cedar = new CedarInstance()
    expect(cedar.call(({ policyToJson }) => policyToJson(deep))).toBeUndefined()
    expect(cedar.isSpent).toBe(true)
    expect(cedar.image()).toBeUndefined()
    expect(cedar.call(({ policyToJson }) => policyToJson(permit))).toBeUndefined()
  })

  test('call() is spent by many throws, and not by the first', () => {
    const cedar = new CedarInstance()
    const lone = `permit (principal, action, resource) when { "\ud800" == "" };`
    const ask = () =>
      cedar.call(({ preparsePolicySet }) => preparsePolicySet('a', { staticPolicies: { a: lone } }))
    expect(ask()).toBeUndefined()
    expect(cedar.isSpent).toBe(false)
    expect(cedar.call(({ policyToJson }) => policyToJson(permit))?.type).toBe('success')
    for (let n = 0; n < 100; n++) ask()
    expect(cedar.isSpent).toBe(true)
  })

  test('image() makes others that know the same, each by itself', () => {
    const cedar = new CedarInstance()
    set(cedar, permit)
    const one = new CedarInstance(cedar.image())
    const other = new CedarInstance(cedar.image())
    set(one, permit.replace('permit', 'forbid'))
    expect([cedar, one, other].map(decisionOf)).toEqual(['allow', 'deny', 'allow'])
  })
})

const permit = 'permit (principal, action, resource);'

function decisionOf(cedar: CedarInstance): string {
  const uid = { type: 'A', id: '1' }
  const answer = cedar.call(({ statefulIsAuthorized }) =>
    statefulIsAuthorized({
      principal: uid,
      action: { type: 'Action', id: 'a' },
      resource: uid,
      context: {},
      entities: [],
      preparsedPolicySetId: 'all',
    }),
  )
  return answer?.type === 'success' ? answer.response.decision : 'none'
}

function set(cedar: CedarInstance, text: string) {
  return cedar.call(({ preparsePolicySet }) =>
    preparsePolicySet('all', { staticPolicies: { p: text } }),
  )
}
