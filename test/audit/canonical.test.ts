import canonicalize from 'canonicalize'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalText, splitText } from '../../audit/canonical.ts'

const scalar = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.boolean(),
  fc.constant(null),
)
const { value } = fc.letrec((tie) => ({
  value: fc.oneof({ maxDepth: 4 }, scalar, tie('list'), tie('record')),
  list: fc.array(tie('value'), { maxLength: 5 }),
  record: fc.dictionary(fc.string({ unit: 'binary' }), tie('value'), {
    maxKeys: 8,
    noNullPrototype: true,
  }),
}))

describe('canonicalText()', () => {
  test('gives the text of the library when the data is plain', () => {
    fc.assert(
      fc.property(value, (data) => {
        expect(canonicalText(data)).toBe(canonicalize(data))
      }),
      { numRuns: 2_000 },
    )
  })

  test('gives the text of the library when numbers and names are of the odd kind', () => {
    const odd = {
      10: 1,
      9: -0,
      é: 1e21,
      e: 1e-7,
      '\u20ac': 0.1,
      '\r': 5e-324,
      '\ufb33': 2 ** 53,
      '\u{1f600}': '\u007f\u0000\u001f"\\/\u2028',
      constructor: [[], {}, [{}]],
    }
    expect(canonicalText(odd)).toBe(canonicalize(odd))
  })

  test.each([
    ['a Date', { at: new Date(0) }],
    ['a member that is undefined', { a: undefined, b: 1 }],
    ['an item that is undefined', [1, undefined]],
    ['a null prototype', Object.assign(Object.create(null), { b: 1, a: 2 })],
    ['a toJSON of its own', { b: 1, a: { toJSON: () => 'own' } }],
    ['many levels', JSON.parse(`${'[{"b":1,"a":'.repeat(30)}0${'}]'.repeat(30)}`)],
  ])('gives the text of the library when there is %s', (_what, data: unknown) => {
    expect(canonicalText(data)).toBe(canonicalize(data))
  })

  test.each([
    ['half a surrogate pair', { a: { b: ['\ud800'] } }],
    ['half a surrogate pair in a name', { a: { '\udc00': 1 } }],
    ['NaN', { a: [Number.NaN] }],
    ['Infinity', { a: Number.NEGATIVE_INFINITY }],
  ])('throws when there is %s', (_what, data) => {
    expect(() => canonicalText(data)).toThrow('is not allowed')
  })

  test('gives the text of now when something within a frozen object has changed', () => {
    const inner = { n: 1 }
    const outer = Object.freeze({ inner, list: Object.freeze([inner]) })
    expect(canonicalText(outer)).toBe('{"inner":{"n":1},"list":[{"n":1}]}')
    inner.n = 2
    expect(canonicalText(outer)).toBe('{"inner":{"n":2},"list":[{"n":2}]}')
  })

  test('gives the same text again when the object is frozen whole', () => {
    const whole = Object.freeze({ b: Object.freeze([1]), a: Object.freeze({}) })
    expect([canonicalText(whole), canonicalText(whole)]).toEqual(Array(2).fill(canonicalize(whole)))
  })

  test('throws when there is nothing to write', () => {
    expect(() => canonicalText(undefined)).toThrow('no canonical JSON form')
  })

  test('throws when the data holds itself', () => {
    const data: Record<string, unknown> = {}
    data['self'] = data
    expect(() => canonicalText(data)).toThrow('Circular')
  })
})

describe('splitText()', () => {
  test('gives the two halves of the whole text when they are joined', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), value, { noNullPrototype: true }), (record) => {
        const { m: _out, ...rest } = record
        const [before, after] = splitText(record, 'm')
        expect(`{${before}"m":0${after === '' ? '' : ','}${after}}`).toBe(
          canonicalize({ ...rest, m: 0 }),
        )
      }),
    )
  })

  test('leaves a member out when it is undefined', () => {
    expect(splitText({ b: undefined, a: 1, z: 2 }, 'm')).toEqual(['"a":1,', '"z":2'])
  })
})
