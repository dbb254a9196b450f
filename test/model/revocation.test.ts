import { describe, expect, test } from 'vitest'
import { explore } from './explore.ts'
import { boundsOf, mutants } from './mutants.ts'
import { rules } from './session.ts'
import type { Bounds } from './world.ts'

/** The least steps on a path. For a longer run than that of every commit. */
const depth = Number(process.env['MODEL_DEPTH'] ?? 0)
const timeoutMs = depth === 0 ? 600_000 : 3_600_000

interface Configuration {
  readonly name: string
  readonly bounds: Bounds
  readonly depth: number
  readonly settleEvery: number
}

const configurations: readonly Configuration[] = [
  {
    name: 'lifts true and forged, a reordered and a lost message, a cut connection',
    bounds: boundsOf({ revoke: 2, lift: 1, forge: 1, drop: 1, reorder: 1, disconnect: 1 }),
    depth: 8,
    settleEvery: 3,
  },
  {
    name: 'a failover',
    bounds: boundsOf({ revoke: 2, lift: 1, failover: 1 }),
    depth: 12,
    settleEvery: 2,
  },
  {
    name: 'a failover and a trimmed log',
    bounds: boundsOf({ revoke: 3, failover: 1, trim: 1 }),
    depth: 10,
    settleEvery: 2,
  },
  {
    name: 'a wiped store',
    bounds: boundsOf({ revoke: 2, lift: 1, wipe: 1, trim: 1 }),
    depth: 12,
    settleEvery: 1,
  },
  {
    name: 'a wiped store and a failover',
    bounds: boundsOf({ revoke: 1, wipe: 1, failover: 1 }),
    depth: 19,
    settleEvery: 2,
  },
  {
    name: 'bare assertions, their lift, a cut connection',
    bounds: boundsOf({ bare: 2, lift: 1, disconnect: 1 }),
    depth: 20,
    settleEvery: 1,
  },
  {
    name: 'bare assertions, their lift, a failover',
    bounds: boundsOf({ bare: 2, lift: 1, failover: 1 }),
    depth: 20,
    settleEvery: 1,
  },
  {
    name: 'two sidecars, a bare assertion, its lift, a failover',
    bounds: boundsOf({ bare: 1, lift: 1, failover: 1 }, { sidecars: 2 }),
    depth: 17,
    settleEvery: 2,
  },
  {
    name: 'a bare assertion and a wiped store',
    bounds: boundsOf({ revoke: 1, bare: 1, lift: 1, wipe: 1 }),
    depth: 11,
    settleEvery: 2,
  },
  {
    name: 'two sidecars, a failover',
    bounds: boundsOf({ revoke: 2, failover: 1 }, { sidecars: 2 }),
    depth: 10,
    settleEvery: 3,
  },
  {
    name: 'two sidecars, a bare assertion, its lift, a cut connection',
    bounds: boundsOf({ bare: 1, lift: 1, disconnect: 1 }, { sidecars: 2 }),
    depth: 15,
    settleEvery: 3,
  },
]

describe('the revocation protocol', () => {
  test('keeps every invariant in every order of events', { timeout: timeoutMs }, () => {
    const lines: string[] = []
    let total = 0
    for (const { name, bounds, depth: usual, settleEvery } of configurations) {
      const found = explore(bounds, { rules, depth: Math.max(depth, usual), settleEvery })
      expect({ name, wrong: found.counterexample }).toEqual({ name, wrong: undefined })
      total += found.states
      lines.push(`${found.states} states, ${found.settled} settled, depth ${found.depth}: ${name}`)
    }
    console.info([`${total} states`, ...lines].join('\n  '))
    expect(total).toBeGreaterThan(10_000)
  })
})

describe('without a guard', () => {
  test.each(mutants())(
    '$guard: the exploration finds what goes wrong',
    (mutant) => {
      const { counterexample } = explore(mutant.bounds, { ...mutant, settleEvery: 1 })
      console.info(
        [`${mutant.guard}: ${counterexample?.wrong}`, ...(counterexample?.path ?? [])].join('\n  '),
      )
      expect(counterexample?.wrong).toMatch(mutant.breaks)
    },
    timeoutMs,
  )
})
