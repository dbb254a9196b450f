import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'
import { describe, expect, test } from 'vitest'
import { observe, type Observed } from '../../policy/observe.ts'
import type { PolicyScope } from '../../policy/policy-scope.ts'
import { fuzz, parse, type Mutant } from './fuzz.ts'

/** `FUZZ_PAIRS=1000000 FUZZ_SEED=7 npx vitest run test/policy/policy-fuzz.test.ts` for more. */
const pairs = Number(process.env['FUZZ_PAIRS'] ?? 3_000)
const seed = Number(process.env['FUZZ_SEED'] ?? 20_261_125)

/** One that comes soon upon each of what is overlooked. */
const mutantSeed = 18

describe('a slice, shown what it can see', () => {
  test('answers as all policies do on the whole request', { timeout: 60_000 + pairs * 5 }, () => {
    const tally = fuzz({ pairs, seed })
    if (pairs > 100_000) process.stdout.write(`${JSON.stringify({ seed, ...tally })}\n`)
    expect(tally.difference).toBeUndefined()
    expect(tally.pairs).toBeGreaterThanOrEqual(pairs * 0.98)
    // The fuzz speaks of something: both answers, failing policies, left out policies, remembered answers.
    for (const count of [tally.allowed, tally.failing, tally.sliced, tally.remembered])
      expect(count).toBeGreaterThan(pairs / 50)
  })

  test.each<[string, Mutant]>([
    ['the value of a place', { observed: (place) => ({ ...place, value: false }) }],
    ['what an entity is in', { observed: (place) => ({ ...place, ancestors: false }) }],
    ['attributes', { observed: (place) => ({ ...place, attributes: new Map() }) }],
    ['typed arguments', { observed: withoutAttributes(/^u\//) }],
    ['the operation', { observed: withoutAttributes(/^operation$/) }],
    ['that an attribute is there', { observed: withoutPresence('attributes') }],
    ['tags', { observed: (place) => ({ ...place, tags: new Map() }) }],
    ['that a tag is there', { observed: withoutPresence('tags') }],
    ['tags by a computed name', { observed: ({ anyTag: _anyTag, ...place }) => place }],
    ['entities that policies name', { root: (name) => !name.includes('::') }],
    ['the context', { root: (name) => name !== 'context' }],
    ['that a scope holds for what is in its entity', { scope: withoutAncestors }],
    [
      'the type in a scope',
      { scope: ({ resource: _resource, ...scope }) => ({ ...scope, resource: { type: 'Thing' } }) },
    ],
  ])('answers otherwise once the analysis overlooks %s', { timeout: 120_000 }, (_, mutant) => {
    const { difference } = fuzz({ pairs: 20_000, seed: mutantSeed, mutant })
    expect(difference).toBeDefined()
  })
})

describe('observe()', () => {
  test('sees a member of a record that nobody reads: when absent, it fails the policy', () => {
    const seen = observe(
      parse(
        'permit (principal, action, resource) when { {k: principal, z: context.n}.k == resource };',
      ),
    )
    expect(seen?.get('context')?.attributes.has('n')).toBe(true)
  })

  test('does not know an expression that it cannot name', () => {
    const policy = parse('permit (principal, action, resource) when { true };')
    expect(observe(policy)).toBeDefined()
    const condition = { kind: 'when', body: { novel: { left: { Value: 1 } } } }
    expect(observe({ ...policy, conditions: [condition] } as unknown as PolicyJson)).toBeUndefined()
  })
})

function withoutAttributes(name: RegExp): (place: Observed) => Observed {
  return (place) => ({
    ...place,
    attributes: new Map([...place.attributes].filter(([key]) => !name.test(key))),
  })
}

/** Forgets the places of which nothing but the presence counts. */
function withoutPresence(kind: 'attributes' | 'tags'): (place: Observed) => Observed {
  return (place) => ({
    ...place,
    [kind]: new Map(
      [...place[kind]].filter(
        ([, { value, attributes, tags, anyTag }]) =>
          value || attributes.size > 0 || tags.size > 0 || anyTag,
      ),
    ),
  })
}

function withoutAncestors({ principal, ...scope }: PolicyScope): PolicyScope {
  const { inAny, ...others } = principal
  const [only] = inAny ?? []
  return { ...scope, principal: only === undefined ? others : { ...others, equals: only } }
}
