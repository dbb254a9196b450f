import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { calculateJwkThumbprint, type JWK } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runCli } from '../kit/world.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chaperone-keys-'))
})
afterEach(() => rm(folder, { recursive: true }))

async function readKey(name: string): Promise<JWK> {
  const set: { readonly keys: readonly JWK[] } = JSON.parse(
    await readFile(join(folder, name), 'utf8'),
  )
  expect(set.keys).toHaveLength(1)
  return set.keys[0] ?? {}
}

describe('chaperone keygen', () => {
  test.each([
    ['ES256', { kty: 'EC', crv: 'P-256' }],
    ['ES384', { kty: 'EC', crv: 'P-384' }],
    ['EdDSA', { kty: 'OKP', crv: 'Ed25519' }],
  ])('writes a private and a public JWK Set of %s', async (alg, kind) => {
    const { code, stdout, stderr } = await runCli(['keygen', join(folder, 'k'), '--alg', alg])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const [privateJwk, publicJwk] = [await readKey('k.private.json'), await readKey('k.jwks.json')]
    expect(privateJwk).toMatchObject({ ...kind, alg, kid: publicJwk.kid })
    expect(publicJwk).toMatchObject({ ...kind, alg, x: privateJwk.x })
    expect(publicJwk.kid).toBe(await calculateJwkThumbprint(publicJwk))
    expect(publicJwk).not.toHaveProperty('d')
    expect(stdout).toContain(`kid ${publicJwk.kid}`)
    expect(stdout).not.toContain(privateJwk.d)
  })

  test('leaves the private file to its owner alone', async () => {
    await runCli(['keygen', join(folder, 'k')])
    expect((await stat(join(folder, 'k.private.json'))).mode & 0o777).toBe(0o600)
  })

  test('never overwrites a key, and leaves no half of a pair', async () => {
    await writeFile(join(folder, 'k.jwks.json'), 'published')
    const { code, stderr } = await runCli(['keygen', join(folder, 'k')])
    expect(code).toBe(2)
    expect(stderr).toBe(
      `chaperone: ${join(folder, 'k.jwks.json')}: exists already, and a key is never overwritten\n`,
    )
    expect(await readdir(folder)).toEqual(['k.jwks.json'])
    expect(await readFile(join(folder, 'k.jwks.json'), 'utf8')).toBe('published')
  })

  test('ends with 2 and keeps the private key when that exists already', async () => {
    await writeFile(join(folder, 'k.private.json'), 'in use')
    expect(await runCli(['keygen', join(folder, 'k')])).toMatchObject({ code: 2 })
    expect(await readdir(folder)).toEqual(['k.private.json'])
    expect(await readFile(join(folder, 'k.private.json'), 'utf8')).toBe('in use')
  })

  test('ends with 2 when the folder does not exist', async () => {
    const { code, stderr } = await runCli(['keygen', join(folder, 'absent', 'k')])
    expect(code).toBe(2)
    expect(stderr).toContain('k.private.json: its folder does not exist')
  })

  test('ends with 64 for an algorithm that no approver may use', async () => {
    const { code, stderr } = await runCli(['keygen', join(folder, 'k'), '--alg', 'HS256'])
    expect(code).toBe(64)
    expect(stderr).toContain('Allowed choices are ES256, ES384, EdDSA')
    expect(await readdir(folder)).toEqual([])
  })
})
