import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Credential, IssueRequest } from '../../credential/issuer.ts'
import { createMintIssuer, createMintKeys } from '../../credential/mint.ts'
import { grantChain } from '../../policy/grant.ts'
import type { Grant } from '../../policy/types.ts'
import { agent, api, chainOf, grant, nowMs, rest } from '../kit/decide-input.ts'
import { manualClock } from '../kit/manual-clock.ts'
import { signingKey, type SigningKey } from '../kit/tokens.ts'

const issuerUrl = 'https://mint.example.org'
const config = { audience: 'https://api.example.org', ttl: 120_000, scope: ['read', 'list'] }

let folder: string
let file: string
let key: SigningKey
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mint-'))
  file = join(folder, 'keys.json')
  key = await signingKey()
  await writeKeys(key)
})
afterEach(() => rm(folder, { recursive: true }))

describe('createMintIssuer()', () => {
  test('mints exactly the claims of the grant, for one upstream', async () => {
    const token = tokenOf(await issue(grant()))
    const { payload, protectedHeader } = await verify(token)
    expect(protectedHeader).toEqual({ alg: 'ES256', kid: key.kid, typ: 'at+jwt' })
    expect(payload).toEqual({
      iss: issuerUrl,
      sub: agent.id,
      client_id: agent.id,
      aud: config.audience,
      iat: nowMs / 1000,
      exp: nowMs / 1000 + 120,
      jti: expect.stringMatching(/^[\w-]{22}$/),
      txn: 'task-1',
      scope: 'read list',
      authorization_details: grant().destinations,
      purpose: 'invoice-check',
      sensitivity: 'internal',
      grant: { jti: 'g1' },
    })
  })

  test('leaves out what the grant says of other upstreams, and an empty scope', async () => {
    const here = api()
    const elsewhere = { ...here, locations: ['https://other.example.org'] }
    const credential = await issue(grant({ destinations: [elsewhere, here] }), { scope: [] })
    const { payload } = await verify(tokenOf(credential))
    expect(payload['authorization_details']).toEqual([here])
    expect(payload).not.toHaveProperty('scope')
  })

  test('ends with the first grant of the chain to end', async () => {
    const chain = chainOf([grant({ expiresAtMs: nowMs + 30_500 }), grant({ jti: 'g2' })])
    const credential = await issue(chain.leaf, { chain })
    const { payload } = await verify(tokenOf(credential))
    expect(payload.exp).toBe(nowMs / 1000 + 30)
    expect(credential.expiresAtMs).toBe(nowMs + 30_000)
  })

  test('names who acts, and within it who delegated to whom', async () => {
    const planner = grant({ agent: 'spiffe://example.org/agent/planner' })
    const middle = grant({ jti: 'g2', agent: 'spiffe://example.org/agent/middle' })
    const leaf = grant({ jti: 'g3' })
    const credential = await issue(leaf, { chain: grantChain(planner, middle, leaf) })
    const { payload } = await verify(tokenOf(credential))
    expect(payload).toMatchObject({
      sub: agent.id,
      act: { sub: agent.id, act: { sub: middle.agent, act: { sub: planner.agent } } },
    })
  })

  test('refuses when the grant ends within this second', async () => {
    await expect(issue(grant({ expiresAtMs: nowMs + 999 }))).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_CREDENTIAL_UNAVAILABLE' }),
    )
  })

  test('never mints the same jti twice', async () => {
    const tokens = await Promise.all(Array.from({ length: 20 }, () => issue(grant())))
    const ids = await Promise.all(
      tokens.map(async (credential) => (await verify(tokenOf(credential))).payload.jti),
    )
    expect(new Set(ids).size).toBe(20)
  })
})

describe('createMintKeys()', () => {
  test('publishes the public halves of all keys and signs with the first', async () => {
    const next = await signingKey('EdDSA')
    await writeKeys(key, next)
    const keys = mintKeys()
    const { keys: published } = keys.jwks()
    expect(published.map(({ kid, alg, use }) => [kid, alg, use])).toEqual([
      [key.kid, 'ES256', 'sig'],
      [next.kid, 'EdDSA', 'sig'],
    ])
    for (const jwk of published) expect(jwk).not.toHaveProperty('d')
  })

  test('signs with the new key after the file was rotated, and says so in its JWKS', async () => {
    const clock = manualClock(nowMs)
    const keys = createMintKeys({ issuer: issuerUrl, keys: { file } }, { clock })
    const old = key
    key = await signingKey('ES384')
    await writeKeys(key, old)
    clock.advance(1_000)
    const issuer = createMintIssuer(config, { keys })
    const token = tokenOf(await issuer.issue(requestOf(grant())))
    const verified = await jwtVerify(token, createLocalJWKSet({ keys: publicKeys(keys) }), {
      currentDate: new Date(nowMs),
    })
    expect(verified.protectedHeader).toMatchObject({ kid: key.kid, alg: 'ES384' })
    expect(keys.jwks().keys).toHaveLength(2)
  })

  test('stops to sign when the file turns bad: a removed key signs nothing more', async () => {
    const clock = manualClock(nowMs)
    const keys = createMintKeys({ issuer: issuerUrl, keys: { file } }, { clock })
    await writeFile(file, '{"keys":[]}')
    clock.advance(1_000)
    const issuer = createMintIssuer(config, { keys })
    await expect(issuer.issue(requestOf(grant()))).rejects.toThrow('1 to 16 private keys')
    await expect(issuer.issue(requestOf(grant()))).rejects.toThrow('1 to 16 private keys')
  })

  test.each([
    ['no JSON', () => 'private', 'Expected a JWK Set'],
    ['no keys', () => '{"keys":[]}', 'Expected a JWK Set'],
    ['a key twice', () => '{"keys":[],"keys":[]}', 'Expected a JWK Set'],
    ['a public key', () => setOf(key.publicJwk), 'Expected a private JWK'],
    ['no kid', () => setOf({ ...key.privateJwk, kid: '' }), 'Expected "kid"'],
    ['another curve', () => setOf({ ...key.privateJwk, crv: 'secp256k1' }), 'Expected crv'],
    ['too many keys', () => setOf(...Array.from({ length: 17 }, () => key.privateJwk)), '1 to 16'],
  ])('refuses a file with %s, and quotes nothing of it', async (_, text, message) => {
    await writeFile(file, text())
    const error = thrownBy(mintKeys)
    expect(error).toMatchObject({
      code: 'ERR_CREDENTIAL_UNAVAILABLE',
      message: expect.stringContaining(message),
    })
    expect(String(error)).not.toContain(key.privateJwk.d)
  })
})

function setOf(...keys: readonly object[]): string {
  return JSON.stringify({ keys })
}

function writeKeys(...keys: readonly SigningKey[]): Promise<void> {
  return writeFile(file, setOf(...keys.map(({ privateJwk }) => privateJwk)))
}

function mintKeys() {
  const clock = manualClock(nowMs)
  return createMintKeys({ issuer: issuerUrl, keys: { file } }, { clock })
}

function publicKeys(keys: ReturnType<typeof mintKeys>) {
  return keys.jwks().keys.map(({ kty = '', ...members }) => ({ kty, ...members }))
}

function issue(
  leaf: Grant,
  more: { readonly scope?: string[]; readonly chain?: IssueRequest['chain'] } = {},
): Promise<Credential> {
  const { scope = config.scope, chain } = more
  const issuer = createMintIssuer({ ...config, scope }, { keys: mintKeys() })
  return issuer.issue({ ...requestOf(leaf), ...(chain && { chain }) })
}

function requestOf(leaf: Grant): IssueRequest {
  return { agent, chain: grantChain(leaf), upstream: rest, nowMs }
}

function tokenOf(credential: Credential): string {
  const [[name, value] = []] = credential.slots().headers
  expect(name).toBe('authorization')
  return value?.replace('Bearer ', '') ?? ''
}

function verify(token: string) {
  const keys = createLocalJWKSet({ keys: publicKeys(mintKeys()) })
  return jwtVerify(token, keys, { currentDate: new Date(nowMs) })
}

function thrownBy(act: () => unknown): unknown {
  try {
    act()
  } catch (error) {
    return error
  }
  throw new Error('Expected it to throw')
}
