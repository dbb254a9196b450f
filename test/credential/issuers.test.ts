import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createIssuer } from '../../credential/issuers.ts'
import { noneIssuer } from '../../credential/none.ts'
import { grantChain } from '../../policy/grant.ts'
import { agent, grant, nowMs, rest } from '../kit/decide-input.ts'
import { manualClock } from '../kit/manual-clock.ts'

const clock = manualClock()
let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'issuers-'))
})
afterEach(() => rm(folder, { recursive: true }))

describe('createIssuer()', () => {
  test('makes the issuer that the configuration names', async () => {
    const file = join(folder, 'key')
    await writeFile(file, 'key')
    const mintKeys = {
      issuer: 'https://mint.example.org',
      sign: () => Promise.resolve(''),
      jwks: () => ({ keys: [] }),
    }
    const inject = { query: 'key', secret: { file } }
    const mint = { audience: 'a', ttl: 120_000, scope: [] }
    const kinds = [{ inject }, { mint }, { none: true as const }].map(
      (config) => createIssuer(config, { mintKeys, clock }).kind,
    )
    expect(kinds).toEqual(['inject', 'mint', 'none'])
  })

  test('refuses to mint when there are no keys', () => {
    const mint = { audience: 'a', ttl: 120_000, scope: [] }
    expect(() => createIssuer({ mint }, { mintKeys: undefined, clock })).toThrow(
      expect.objectContaining({ code: 'ERR_CREDENTIAL_UNAVAILABLE' }),
    )
  })
})

describe('noneIssuer', () => {
  test('gives nothing to inject, and nothing to revoke', async () => {
    const chain = grantChain(grant())
    const credential = await noneIssuer.issue({ agent, chain, upstream: rest, nowMs })
    expect(credential).toMatchObject({ kind: 'none', digest: '-', expiresAtMs: Infinity })
    expect(credential.slots()).toEqual({ headers: [], query: [] })
    expect(await credential.revoke()).toBe('unsupported')
  })
})
