import { describe, expect, test } from 'vitest'
import { grantChain } from '../../policy/grant.ts'
import { observedUntilMs } from '../../proxy/observed-only.ts'
import { chainOf, grant } from '../kit/decide-input.ts'

const policy = {
  directory: undefined,
  maxShadowPerSecond: 1,
  presets: [],
  unsafeObserveTasks: [
    { task: 'T-1', until: 1000 },
    { task: 'T-2', until: 2000 },
  ],
}
const root = grant({ txn: 'T-1' })

describe('observedUntilMs()', () => {
  test.each([
    ['neither', 'T-9', undefined, undefined],
    ['the task', 'T-1', undefined, 1000],
    ['the route', 'T-9', 1500, 1500],
    ['the later one, of the route', 'T-1', 1500, 1500],
    ['the later one, of the task', 'T-2', 1500, 2000],
  ])('goes by %s', (_what, txn, routeMs, expected) => {
    const route = { unsafeObserveUntilMs: routeMs }
    expect(observedUntilMs({ policy }, { route, chain: grantChain(grant({ txn })) })).toBe(expected)
  })

  test('does not hold for what is delegated from the task', () => {
    const chain = chainOf([root, grant({ txn: 'T-9' })])
    expect(observedUntilMs({ policy }, { route: {}, chain })).toBeUndefined()
  })
})
