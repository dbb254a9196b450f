import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createInjectIssuer } from '../../credential/inject.ts'
import type { IssueRequest } from '../../credential/issuer.ts'
import { grantChain } from '../../policy/grant.ts'
import { agent, grant, nowMs, rest } from '../kit/decide-input.ts'
import { manualClock } from '../kit/manual-clock.ts'

const request: IssueRequest = { agent, chain: grantChain(grant()), upstream: rest, nowMs }

let folder: string
let file: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inject-'))
  file = join(folder, 'key')
  await writeFile(file, 's3cret\n')
})
afterEach(() => rm(folder, { recursive: true }))

describe('createInjectIssuer()', () => {
  test('fills its one header when configured for a header', async () => {
    const config = { header: 'x-api-key', template: 'Key {secret}!', secret: { file } }
    const issuer = createInjectIssuer(config, { clock: manualClock() })
    expect(issuer).toMatchObject({
      kind: 'inject',
      revocationClass: 'R0',
      slots: { headers: ['x-api-key'], query: [] },
    })
    const credential = await issuer.issue(request)
    expect(credential.slots()).toEqual({ headers: [['x-api-key', 'Key s3cret!']], query: [] })
    expect(credential).toMatchObject({ kind: 'inject', expiresAtMs: Infinity })
    expect(await credential.revoke()).toBe('unsupported')
  })

  test('fills Authorization when configured for basic', async () => {
    const config = { basic: { username: 'me' }, secret: { file } }
    const issuer = createInjectIssuer(config, { clock: manualClock() })
    expect(issuer.slots).toEqual({ headers: ['authorization'], query: [] })
    const value = `Basic ${Buffer.from('me:s3cret').toString('base64')}`
    expect((await issuer.issue(request)).slots().headers).toEqual([['authorization', value]])
  })

  test('fills its one parameter when configured for the query', async () => {
    const issuer = createInjectIssuer({ query: 'key', secret: { file } }, { clock: manualClock() })
    expect(issuer.slots).toEqual({ headers: [], query: ['key'] })
    expect((await issuer.issue(request)).slots()).toEqual({
      headers: [],
      query: [['key', 's3cret']],
    })
  })

  test("takes '$&' and '{secret}' in a secret as they are", async () => {
    await writeFile(file, "$&-$1-{secret}-$'")
    const config = { header: 'x', template: 'a {secret} b', secret: { file } }
    const issuer = createInjectIssuer(config, { clock: manualClock() })
    expect((await issuer.issue(request)).slots().headers).toEqual([['x', "a $&-$1-{secret}-$' b"]])
  })

  test('refuses to start when the file is missing', () => {
    const config = { query: 'key', secret: { file: join(folder, 'none') } }
    expect(() => createInjectIssuer(config, { clock: manualClock() })).toThrow(
      expect.objectContaining({ code: 'ERR_CREDENTIAL_UNAVAILABLE' }),
    )
  })

  test('refuses any secret that holds a line break, control or non-ASCII character, and never quotes it', async () => {
    const bad = fc.constantFrom('\r', '\n', '\0', '\t', '\x7f', '\x1b', 'é', '\u2028', '\ufeff')
    const part = fc.stringMatching(/^[!-~]{4,12}$/)
    await fc.assert(
      fc.asyncProperty(part, bad, part, async (before, character, after) => {
        await writeFile(file, `${before}${character}${after}`)
        const error = thrownBy(() =>
          createInjectIssuer({ query: 'key', secret: { file } }, { clock: manualClock() }),
        )
        expect(error).toMatchObject({ code: 'ERR_CREDENTIAL_UNAVAILABLE' })
        expect(inspect(error)).toContain('Expected one line of printable ASCII')
        expect(inspect(error).replaceAll(file, '')).not.toContain(`${before}${character}`)
      }),
      { numRuns: 50 },
    )
  })

  test('rejects while the file is bad, and issues the new secret after it', async () => {
    const clock = manualClock()
    const issuer = createInjectIssuer({ query: 'key', secret: { file } }, { clock })
    const first = await issuer.issue(request)
    clock.advance(1_000)
    await writeFile(file, 'line one\r\nx-injected: yes')
    await expect(issuer.issue(request)).rejects.toThrow('Expected one line of printable ASCII')
    await expect(issuer.issue(request)).rejects.toThrow('Expected one line of printable ASCII')
    clock.advance(1_000)
    await writeFile(file, 'rotated')
    const second = await issuer.issue(request)
    expect(second.slots().query).toEqual([['key', 'rotated']])
    expect(second.digest).not.toBe(first.digest)
  })

  test('shows no secret when printed', async () => {
    const issuer = createInjectIssuer({ query: 'key', secret: { file } }, { clock: manualClock() })
    const credential = await issuer.issue(request)
    for (const shown of [credential, issuer]) {
      expect(inspect(shown, { depth: 9, showHidden: true })).not.toContain('s3cret')
      expect(JSON.stringify(shown)).not.toContain('s3cret')
    }
    expect(credential.digest).toMatch(/^[0-9a-f]{16}$/)
  })
})

function thrownBy(act: () => unknown): unknown {
  try {
    act()
  } catch (error) {
    return error
  }
  throw new Error('Expected it to throw')
}
