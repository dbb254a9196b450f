import { isDeepStrictEqual } from 'node:util'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseStrictJson, type JsonValue, type StrictJsonLimits } from '../../policy/strict-json.ts'

const limits: StrictJsonLimits = { maxBytes: 65_536, maxDepth: 16 }

function parse(text: string | Uint8Array, more: Partial<StrictJsonLimits> = {}) {
  return parseStrictJson(typeof text === 'string' ? Buffer.from(text) : text, {
    ...limits,
    ...more,
  })
}

describe('parseStrictJson()', () => {
  test('agrees with JSON.parse on every value that JSON.stringify writes', () => {
    const check = fc.check(
      fc.property(fc.jsonValue({ maxDepth: 6 }), fc.nat(3), (value, indent) => {
        const text = JSON.stringify(value, undefined, indent)
        const result = parse(text, { maxBytes: 1 << 20 })
        if (!result.ok) return /beyond 2\^53|like a prototype|lone surrogate/.test(result.reason)
        return isDeepStrictEqual(plain(result.value), JSON.parse(text))
      }),
    )
    expect(check.counterexample).toBe(null)
  })

  test('accepts nothing that JSON.parse refuses, and reads the rest the same way', () => {
    const words = String.raw`{ } [ ] , : " \ "a" "b" "\u0061" "\ud800" 1 - 0 .5 e9 true null fals é`
    const piece = fc.constantFrom(...words.split(' '), ' ', '\n', '\u00a0', '\u0000', '\ufeff')
    const near = fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join(''))
    const check = fc.check(
      fc.property(near, (text) => {
        const result = parse(text)
        return !result.ok || isDeepStrictEqual(plain(result.value), JSON.parse(text))
      }),
      { numRuns: 5_000 },
    )
    expect(check.counterexample).toBe(null)
  })

  test('accepts what JSON.parse accepts, but for the named reasons', () => {
    const piece = fc.constantFrom(
      '{"a":',
      '[',
      '1',
      '"x"',
      ',',
      ']',
      '}',
      ' ',
      '"b":',
      'null',
      '{',
      '-0',
    )
    const near = fc.array(piece, { maxLength: 10 }).map((pieces) => pieces.join(''))
    const check = fc.check(
      fc.property(near, (text) => {
        const result = parse(text)
        return result.ok || result.reason === 'a member name stands twice' || !parses(text)
      }),
      { numRuns: 5_000 },
    )
    expect(check.counterexample).toBe(null)
  })

  test.each<[string, string | Uint8Array, string]>([
    ['a duplicate name', '{"a":1,"a":2}', 'a member name stands twice'],
    ['a duplicate after unescaping', String.raw`{"a":1,"\u0061":2}`, 'a member name stands twice'],
    ['a duplicate deep inside', '{"x":[{"y":{"a":1,"a":1}}]}', 'a member name stands twice'],
    ['__proto__', '{"__proto__":{"admin":true}}', 'a member is named like a prototype'],
    ['__proto__ escaped', String.raw`{"\u005f_proto__":1}`, 'a member is named like a prototype'],
    ['constructor', '{"a":{"constructor":1}}', 'a member is named like a prototype'],
    ['prototype', '{"prototype":1}', 'a member is named like a prototype'],
    ['a BOM', '\ufeff{}', 'not JSON'],
    ['something after the value', '{} {}', 'more after the value'],
    ['a NUL after the value', '{}\u0000', 'more after the value'],
    ['nothing', '', 'not JSON'],
    ['only space', ' \n', 'not JSON'],
    ['a lone high surrogate', String.raw`["\ud83d"]`, 'a string has a lone surrogate'],
    ['a lone low surrogate', String.raw`{"\udc00":1}`, 'a string has a lone surrogate'],
    [
      'surrogates in the wrong order',
      String.raw`["\ude00\ud83d"]`,
      'a string has a lone surrogate',
    ],
    ['an overflowing number', '{"exp":1e999}', 'a number is not finite'],
    ['an unsafe integer', '[9007199254740993]', 'an integer is beyond 2^53'],
    ['an unsafe integer with exponent', '[1e17]', 'an integer is beyond 2^53'],
    ['NaN', '[NaN]', 'not JSON'],
    ['Infinity', '[-Infinity]', 'not JSON'],
    ['a leading zero', '[01]', 'not JSON'],
    ['a plus sign', '[+1]', 'not JSON'],
    ['a bare fraction', '[.5]', 'not JSON'],
    ['single quotes', "{'a':1}", 'not JSON'],
    ['a comment', '{/**/}', 'not JSON'],
    ['a trailing comma', '[1,]', 'not JSON'],
    ['a raw newline in a string', '["a\nb"]', 'not JSON'],
    ['a bad escape', String.raw`["\x41"]`, 'not JSON'],
    ['a string without end', '"abc', 'not JSON'],
    ['a backslash at the end', '"abc\\', 'not JSON'],
    ['no-break space', '\u00a0{}', 'not JSON'],
    ['overlong UTF-8', Uint8Array.of(0x22, 0xc0, 0xaf, 0x22), 'not UTF-8'],
    ['a surrogate in UTF-8', Uint8Array.of(0x22, 0xed, 0xa0, 0x80, 0x22), 'not UTF-8'],
    ['a cut-off sequence', Uint8Array.of(0x22, 0xe2, 0x82), 'not UTF-8'],
    ['UTF-16', Buffer.from('{"a":1}', 'utf16le'), 'not JSON'],
  ])('refuses %s', (_, input, reason) => {
    expect(parse(input)).toStrictEqual({ ok: false, reason })
  })

  test('counts depth before it descends, however deep the input is', () => {
    expect(parse('['.repeat(16) + ']'.repeat(16)).ok).toBe(true)
    const reason = 'nested deeper than 16'
    expect(parse('['.repeat(17) + ']'.repeat(17))).toStrictEqual({ ok: false, reason })
    const deep = '{"a":'.repeat(200_000)
    expect(parse(deep, { maxBytes: 1 << 21 })).toStrictEqual({ ok: false, reason })
  })

  test('counts depth, not the number of containers', () => {
    expect(parse(`[${'[],'.repeat(100)}{}]`, { maxDepth: 2 }).ok).toBe(true)
  })

  test('refuses more bytes than the limit before it reads them', () => {
    expect(parse('"ab"', { maxBytes: 4 }).ok).toBe(true)
    const reason = 'longer than 4 bytes'
    expect(parse('"abc"', { maxBytes: 4 })).toStrictEqual({ ok: false, reason })
  })

  test.each(['{"Name":1,"name":2}', '{"K":1,"\u212a":2}', '{"s":1,"\u017f":2}'])(
    'refuses %s with foldCase only',
    (text) => {
      expect(parse(text).ok).toBe(true)
      expect(parse(text, { foldCase: true })).toStrictEqual({
        ok: false,
        reason: 'a member name stands twice',
      })
    },
  )

  test('reads large integers as text when asked', () => {
    const text = '{"n":18446744073709551615,"m":7}'
    expect(parse(text, { largeIntegersAsText: true })).toMatchObject({
      value: { n: '18446744073709551615', m: 7 },
    })
    expect(parse('[1e17]', { largeIntegersAsText: true }).ok).toBe(false)
  })

  test('gives objects without a prototype', () => {
    const result = parse('{"a":{}}')
    expect(result.ok && Object.getPrototypeOf(result.value)).toBe(null)
  })

  test('reads a long string and a wide array in linear time', () => {
    const long = JSON.stringify([
      'é\\"\n'.repeat(200_000),
      ...Array.from({ length: 100_000 }, () => 1),
    ])
    expect(parse(long, { maxBytes: 1 << 24 }).ok).toBe(true)
  })
})

function parses(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** The same value with ordinary objects, to compare with what JSON.parse gives. */
function plain(value: JsonValue): unknown {
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]))
}
