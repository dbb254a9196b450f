import { describe, expect, test } from 'vitest'
import type { ApproverConfig } from '../../config/schema.ts'
import { ApproverError, createApproverRegistry, parseApproverKeys } from '../../policy/approver.ts'
import { signingKey } from '../kit/tokens.ts'

const key = await signingKey('ES256', { kid: 'k1' })
const rsa = await signingKey('PS256', { kid: 'r1' })
const secondsOnCurve = await signingKey('Ed25519', { kid: 'e1' })

const config: ApproverConfig = {
  iss: 'https://approver.example.org',
  jwks: 'unused',
  maxTtl: 3_600_000,
  maxSensitivity: 'internal',
}

describe('parseApproverKeys()', () => {
  test('reads public keys with the one algorithm that each names', () => {
    const keys = parseApproverKeys({
      keys: [key.publicJwk, rsa.publicJwk, secondsOnCurve.publicJwk],
    })
    expect(keys.map(({ kid, algs, signatureBytes }) => ({ kid, algs, signatureBytes }))).toEqual([
      { kid: 'k1', algs: ['ES256'], signatureBytes: 64 },
      { kid: 'r1', algs: ['PS256'], signatureBytes: 256 },
      { kid: 'e1', algs: ['Ed25519'], signatureBytes: 64 },
    ])
  })

  const { kid: _kid, ...withoutKid } = key.publicJwk
  const { alg: _alg, ...withoutAlg } = key.publicJwk

  test.each<[string, unknown, string]>([
    ['no set', null, 'Expected a JWK Set: an object with the array "keys"'],
    ['a list', [key.publicJwk], 'Expected a JWK Set: an object with the array "keys"'],
    ['a bare key', key.publicJwk, 'Expected a JWK Set: an object with the array "keys"'],
    ['no keys', { keys: [] }, 'Expected at least one key in the JWK Set'],
    [
      'too many keys',
      { keys: Array.from({ length: 65 }, () => key.publicJwk) },
      'Expected at most 64 keys',
    ],
    ['an entry that is none', { keys: [1] }, 'keys[0]: Expected an object'],
    ['no kid', { keys: [withoutKid] }, 'keys[0]: Expected "kid", text of 1 to 256 characters'],
    [
      'no alg',
      { keys: [withoutAlg] },
      'keys[0]: Expected "alg", one of ES256, ES384, EdDSA, Ed25519, PS256, RS256',
    ],
    [
      'alg of no grant',
      { keys: [{ ...key.publicJwk, alg: 'HS256' }] },
      'keys[0]: Expected "alg", one of ES256, ES384, EdDSA, Ed25519, PS256, RS256',
    ],
    [
      'alg of another type',
      { keys: [{ ...key.publicJwk, alg: 'RS256' }] },
      'keys[0]: Cannot use the key: its alg does not fit its type',
    ],
    [
      'a private key',
      { keys: [key.publicJwk, { ...rsa.privateJwk, kid: 'p' }] },
      'keys[1]: Cannot use the key: it is not a public key',
    ],
    [
      'a secret',
      { keys: [{ kty: 'oct', k: 'AAAA', kid: 'o', alg: 'ES256' }] },
      'keys[0]: Cannot use the key: it is not a public key',
    ],
    [
      'a key for encryption',
      { keys: [{ ...key.publicJwk, use: 'enc' }] },
      'keys[0]: Expected "use" to be "sig" or absent',
    ],
    [
      'key_ops without verify',
      { keys: [{ ...key.publicJwk, key_ops: ['sign'] }] },
      'keys[0]: Cannot use the key: its key_ops leave out "verify"',
    ],
    ['a kid twice', { keys: [key.publicJwk, key.publicJwk] }, 'keys[1]: its kid stands twice'],
  ])('refuses %s', (_, jwks, message) => {
    expect(() => parseApproverKeys(jwks)).toThrow(new ApproverError(message))
  })
})

describe('createApproverRegistry()', () => {
  const keys = parseApproverKeys({ keys: [key.publicJwk] })

  test('finds an approver by exactly its iss', () => {
    const registry = createApproverRegistry([config], new Map([[config.iss, keys]]))
    expect(registry.find(config.iss)?.keys.get('k1')?.algs).toEqual(['ES256'])
    expect(registry.find(`${config.iss}/`)).toBe(undefined)
    expect(registry.find('constructor')).toBe(undefined)
  })

  test('brings ceilings into canonical form', () => {
    const locations = ['https://a.org:443', 'wss://*.b.org', 'https://c.org/mcp']
    const registry = createApproverRegistry(
      [{ ...config, locations }],
      new Map([[config.iss, keys]]),
    )
    expect(registry.find(config.iss)?.locations).toEqual([
      'https://a.org',
      'https://*.b.org',
      'https://c.org/mcp',
    ])
  })

  test.each<[string, readonly ApproverConfig[], string]>([
    ['two of one iss', [config, config], `Approver "${config.iss}" is listed twice`],
    ['one without keys', [{ ...config, iss: 'x' }], 'Approver "x" has no keys'],
    [
      'a location that is none',
      [{ ...config, locations: ['*.example.org'] }],
      `Approver "${config.iss}": Expected a location such as "https://api.example.org" or "https://*.example.org"`,
    ],
  ])('refuses %s', (_, approvers, message) => {
    expect(() => createApproverRegistry(approvers, new Map([[config.iss, keys]]))).toThrow(
      new ApproverError(message),
    )
  })

  const iss = 'https://delegation.example.org'
  const delegation = { iss, jwks: 'unused', maxTtl: 900_000 }

  test('keeps the delegation authority apart from the approvers', async () => {
    const own = await signingKey('ES256', { kid: 'd1' })
    const keysByIss = new Map([
      [config.iss, keys],
      [iss, parseApproverKeys({ keys: [own.publicJwk] })],
    ])
    const registry = createApproverRegistry([config], keysByIss, { delegation })
    expect(registry.find(iss)).toBe(undefined)
    expect(registry.delegator).toMatchObject({ iss, maxTtlMs: 900_000 })
    expect(createApproverRegistry([config], keysByIss)).not.toHaveProperty('delegator')
  })

  test.each([
    ['that is an approver', config.iss, `"${config.iss}" is an approver`],
    ['without keys', 'x', '"x" has no keys'],
    [
      'with a key of an approver',
      iss,
      `"${iss}": one of its keys is of the approver "${config.iss}"`,
    ],
  ])('refuses a delegation authority %s', (_, authority, message) => {
    const keysByIss = new Map([
      [config.iss, keys],
      // The same key by another name.
      [iss, parseApproverKeys({ keys: [{ ...key.publicJwk, kid: 'k2' }] })],
    ])
    expect(() =>
      createApproverRegistry([config], keysByIss, {
        delegation: { ...delegation, iss: authority },
      }),
    ).toThrow(new ApproverError(`Delegation authority ${message}`))
  })
})
