import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { matchesSpiffePattern, parseSpiffeId, trustDomainOf } from '../../policy/spiffe-id.ts'
import type { SpiffeId } from '../../policy/types.ts'

const trustDomainChars = new Set('abcdefghijklmnopqrstuvwxyz0123456789._-')
const pathChars = new Set([...trustDomainChars, ...'ABCDEFGHIJKLMNOPQRSTUVWXYZ'.split('')])
const codePoints = Array.from({ length: 256 }, (_, code) => String.fromCodePoint(code))

describe('parseSpiffeId()', () => {
  test.each([
    'spiffe://example.org/a',
    'spiffe://1.2.3.4/a',
    'spiffe://a_b-c.d/ns/x/sa/Y',
    'spiffe://td/...',
    'spiffe://td/.path',
    'spiffe://td/a..b/..c',
    `spiffe://td/${'a'.repeat(2048 - 'spiffe://td/'.length)}`,
    `spiffe://${'t'.repeat(255)}/a`,
  ])('accepts %s unchanged', (text) => {
    expect(parseSpiffeId(text)).toBe(text)
  })

  test.each([
    ['nothing', ''],
    ['another scheme', 'https://td/a'],
    ['a scheme in upper case', 'SPIFFE://td/a'],
    ['a scheme in mixed case', 'Spiffe://td/a'],
    ['no trust domain', 'spiffe:///a'],
    ['a trust domain of 256 bytes', `spiffe://${'t'.repeat(256)}/a`],
    ['a trust domain in upper case', 'spiffe://TD/a'],
    ['userinfo', 'spiffe://u@td/a'],
    ['a port', 'spiffe://td:443/a'],
    ['percent-encoding in the trust domain', 'spiffe://t%64/a'],
    ['percent-encoding in the path', 'spiffe://td/%61'],
    ['a query', 'spiffe://td/a?x'],
    ['a bare question mark', 'spiffe://td/a?'],
    ['a fragment', 'spiffe://td/a#x'],
    ['a bare hash', 'spiffe://td/a#'],
    ['no path', 'spiffe://td'],
    ['the root path', 'spiffe://td/'],
    ['a trailing slash', 'spiffe://td/a/'],
    ['an empty segment', 'spiffe://td/a//b'],
    ['a dot segment', 'spiffe://td/./a'],
    ['a double-dot segment', 'spiffe://td/a/../b'],
    ['a dot segment at the end', 'spiffe://td/a/.'],
    ['a double-dot segment at the end', 'spiffe://td/a/..'],
    ['a leading space', ' spiffe://td/a'],
    ['a trailing newline', 'spiffe://td/a\n'],
    ['2049 bytes', `spiffe://td/${'a'.repeat(2049 - 'spiffe://td/'.length)}`],
  ])('refuses %s', (_, text) => {
    expect(parseSpiffeId(text)).toBe(undefined)
  })

  test('accepts exactly the characters of the specification, at every position', () => {
    const inTrustDomain = codePoints.filter((char) => parseSpiffeId(`spiffe://t${char}d/a`))
    const inPath = codePoints.filter((char) => parseSpiffeId(`spiffe://td/a${char}b`))
    // A slash ends the trust domain, and separates segments.
    expect(new Set(inTrustDomain)).toStrictEqual(new Set([...trustDomainChars, '/']))
    expect(new Set(inPath)).toStrictEqual(new Set([...pathChars, '/']))
  })

  test('never throws, and changes nothing that it accepts', () => {
    const near = fc.string({ unit: fc.constantFrom(...'spiffe:/.*%?#@aA_-'.split('')) })
    const check = fc.check(
      fc.property(
        fc.oneof(
          near,
          near.map((text) => `spiffe://td/${text}`),
        ),
        (text) => {
          const id = parseSpiffeId(text)
          return id === undefined || (id === text && new URL(id).href === id)
        },
      ),
      { numRuns: 2_000 },
    )
    expect(check.counterexample).toBe(null)
  })
})

test('trustDomainOf() gives what stands between scheme and path', () => {
  expect(trustDomainOf('spiffe://example.org/ns/a')).toBe('example.org')
})

const segment = fc.string({ unit: fc.constantFrom('a', 'b', 'A', '-'), minLength: 1, maxLength: 3 })
const id = fc
  .array(segment, { minLength: 1, maxLength: 4 })
  .map((segments): SpiffeId => `spiffe://td/${segments.join('/')}`)

describe('matchesSpiffePattern()', () => {
  test.each<[boolean, SpiffeId, string]>([
    [true, 'spiffe://td/ns/a', 'spiffe://td/ns/a'],
    [true, 'spiffe://td/ns/a', 'spiffe://td/ns/*'],
    [true, 'spiffe://td/ns/a/sa/b', 'spiffe://td/ns/*/sa/*'],
    [true, 'spiffe://td/ns/a/x', 'spiffe://td/ns/a/**'],
    [true, 'spiffe://td/ns/a/x/y', 'spiffe://td/ns/a/**'],
    [true, 'spiffe://td/a', 'spiffe://td/**'],
    [false, 'spiffe://td/ns/a', 'spiffe://td/ns/a/**'],
    [false, 'spiffe://td/ns/ab', 'spiffe://td/ns/a/**'],
    [false, 'spiffe://td/ns/ab/x', 'spiffe://td/ns/a/**'],
    [false, 'spiffe://td/payroll', 'spiffe://td/pay'],
    [false, 'spiffe://td/ns/a/b', 'spiffe://td/ns/*'],
    [false, 'spiffe://td/NS/a', 'spiffe://td/ns/a'],
    [false, 'spiffe://other/ns/a', 'spiffe://td/**'],
    [false, 'spiffe://td/ns/a', 'spiffe://*/ns/a'],
    [false, 'spiffe://td/ns/a', 'spiffe://**'],
    [false, 'spiffe://td/ns/a', '**'],
    [false, 'spiffe://td/ns/abc', 'spiffe://td/ns/a*'],
    [false, 'spiffe://td/ns/x/a', 'spiffe://td/**/a'],
    [false, 'spiffe://td/ns', 'spiffe://td/'],
  ])('is %s for %s and %s', (expected, agent, pattern) => {
    expect(matchesSpiffePattern(agent, pattern)).toBe(expected)
  })

  test('takes every ID for a pattern of itself alone', () => {
    const check = fc.check(
      fc.property(id, id, (one, other) => matchesSpiffePattern(one, other) === (one === other)),
      { numRuns: 2_000 },
    )
    expect(check.counterexample).toBe(null)
  })

  test('matches a tail exactly when the ID goes on with a slash', () => {
    const check = fc.check(
      fc.property(
        id,
        id,
        (one, base) => matchesSpiffePattern(one, `${base}/**`) === one.startsWith(`${base}/`),
      ),
      { numRuns: 2_000 },
    )
    expect(check.counterexample).toBe(null)
  })
})
