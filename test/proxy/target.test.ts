import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseTarget } from '../../proxy/target.ts'

describe('parseTarget()', () => {
  test.each([
    ['/', '/', undefined],
    ['/a/b/', '/a/b/', undefined],
    ['/a?', '/a', ''],
    ['/a?x=1&y=%2F..//', '/a', 'x=1&y=%2F..//'],
    ['/a?filter[x]={1}|2', '/a', 'filter[x]={1}|2'],
    ['/caf%C3%A9/a%20b/@me:x', '/caf%C3%A9/a%20b/@me:x', undefined],
    ['/...', '/...', undefined],
    ['/.well-known/x', '/.well-known/x', undefined],
  ])('gives the bytes of %s as they are', (url, path, query) => {
    expect(parseTarget(url)).toEqual({ ok: true, path, query })
  })

  test.each([
    ['http://evil.example/x', 'origin-form'],
    ['evil.example:443', 'origin-form'],
    ['*', 'origin-form'],
    ['', 'origin-form'],
    ['//evil.example/x', 'empty segment'],
    ['/a//b', 'empty segment'],
    ['/a/../b', 'dot segment'],
    ['/a/.', 'dot segment'],
    ['/..', 'dot segment'],
    ['/a/%2e%2e/b', 'encoded delimiter'],
    ['/a/%2E./b', 'encoded delimiter'],
    ['/a%2fb', 'encoded delimiter'],
    ['/a%5Cb', 'encoded delimiter'],
    ['/a%252fb', 'encoded delimiter'],
    ['/a%3bb', 'encoded delimiter'],
    ['/a%3fb', 'encoded delimiter'],
    ['/a%23b', 'encoded delimiter'],
    ['/%61dmin', 'encoded letter'],
    ['/a%5fb', 'encoded letter'],
    ['/a%7Eb', 'encoded letter'],
    ['/a%00b', 'control'],
    ['/a%0d%0ab', 'control'],
    ['/a%C2%85b', 'control'],
    ['/a;b', 'character'],
    ['/a;/../b', 'character'],
    ['/a\\b', 'character'],
    ['/a#b', 'character'],
    ['/a b', 'character'],
    ['/a\tb', 'character'],
    ['/a\0b', 'character'],
    ['/caf\u00e9', 'character'],
    ['/a%', 'character'],
    ['/a%zz', 'character'],
    ['/a%u002e', 'character'],
    ['/a%c0%af', 'UTF-8'],
    ['/a%EF%BC%8Fb', 'folds'],
    ['/%E2%80%A5', 'folds'],
    ['/a?b#c', 'query'],
    ['/a?b\\c', 'query'],
    ['/a?b%', 'query'],
    ['/a?b=%00', 'NUL'],
    [`/${'a'.repeat(8192)}`, '8 KiB'],
  ])('refuses %s', (url, detail) => {
    expect(parseTarget(url)).toEqual({ ok: false, detail: expect.stringContaining(detail) })
  })

  test('takes 8 KiB exactly', () => {
    expect(parseTarget(`/${'a'.repeat(8191)}`).ok).toBe(true)
  })

  test('accepts only paths that a normalising reader leaves as they are', () => {
    const piece = fc.oneof(
      fc.constantFrom(
        '/',
        '.',
        '..',
        '%2e',
        '%2F',
        '%25',
        '%61',
        '%C3%A9',
        '%EF%BC%8F',
        ';',
        '\\',
        'a',
        '~',
      ),
      fc.string({ unit: 'binary', maxLength: 3 }),
      fc.integer({ min: 0, max: 255 }).map((byte) => `%${byte.toString(16).padStart(2, '0')}`),
    )
    let accepted = 0
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const url = `/${pieces.join('')}`
        const target = parseTarget(url)
        if (!target.ok) return
        accepted += 1
        const read = new URL(url, 'http://host.example')
        expect(read.pathname).toBe(target.path)
        expect(read.host).toBe('host.example')
        const once = target.path.split('/').map(decodeURIComponent)
        expect(decodeURIComponent(target.path).split('/')).toEqual(once)
        // Decoding a second time finds nothing more, whatever the reader does.
        expect(once.map(decodeURIComponent)).toEqual(once)
      }),
      { numRuns: 5_000 },
    )
    expect(accepted).toBeGreaterThan(100)
  })
})
