import { describe, expect, test } from 'vitest'
import { bearerToken } from '../../identity/bearer.ts'

describe('bearerToken()', () => {
  test.each([
    ['one field', ['Authorization', 'Bearer abc.def']],
    ['another case of name and scheme', ['AUTHORIZATION', 'bearer abc.def']],
    ['more spaces', ['authorization', 'Bearer   abc.def']],
    ['other fields around it', ['accept', '*/*', 'authorization', 'Bearer abc.def', 'x', 'y']],
  ])('reads %s', (_, rawHeaders) => {
    expect(bearerToken(rawHeaders)).toEqual({ token: 'abc.def' })
  })

  test.each([
    ['no field', [], 'identity-required', 'no Authorization field'],
    [
      'another scheme',
      ['authorization', 'Basic abc'],
      'identity-required',
      'the Authorization scheme is not Bearer',
    ],
    [
      'two fields',
      ['authorization', 'Bearer a', 'Authorization', 'Bearer a'],
      'credential-ambiguous',
      'more than one Authorization field',
    ],
    [
      'no token',
      ['authorization', 'Bearer'],
      'identity-invalid',
      'the Authorization field holds no single token',
    ],
    [
      'two tokens',
      ['authorization', 'Bearer a b'],
      'identity-invalid',
      'the Authorization field holds no single token',
    ],
    [
      'a tab',
      ['authorization', 'Bearer\ta'],
      'identity-required',
      'the Authorization scheme is not Bearer',
    ],
  ])('refuses %s', (_, rawHeaders, code, detail) => {
    expect(bearerToken(rawHeaders)).toEqual({ outcome: 'deny', code, detail })
  })
})
