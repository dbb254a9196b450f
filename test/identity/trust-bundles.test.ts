import { mkdtemp, rename, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Config, TrustBundleConfig } from '../../config/schema.ts'
import { TrustBundles } from '../../identity/trust-bundles.ts'
import { manualClock } from '../kit/manual-clock.ts'
import { bundleDocument, names, signingKey, type SigningKey } from '../kit/tokens.ts'
import { localhostCertFile, startTlsServer } from '../kit/tls.ts'

let first: SigningKey
let second: SigningKey
beforeAll(async () => {
  first = await signingKey()
  second = await signingKey()
})

const day = 24 * 3600 * 1000

function identity(...trustBundles: readonly TrustBundleConfig[]): Config['identity'] {
  return {
    trustBundles: [...trustBundles],
    clockSkew: 5_000,
    maxSvidTtl: day,
    maxSvidBytes: 8192,
    maxAudiences: 4,
    maxBundleStaleness: day,
  }
}

async function bundleFile(text: string): Promise<{ path: string; directory: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'chaperone-bundle-'))
  const path = join(directory, 'bundle.json')
  await writeFile(path, text)
  return { path, directory }
}

function kids(bundles: TrustBundles, trustDomain: string = names.trustDomain): readonly string[] {
  const found = bundles.find(trustDomain)
  return found.state === 'usable' ? [...found.bundle.keys.keys()] : [found.state]
}

describe('TrustBundles from a file', () => {
  test('find() knows the domain that was loaded, and no other', async () => {
    const { path: file } = await bundleFile(bundleDocument([first]))
    await using bundles = new TrustBundles(identity({ trustDomain: names.trustDomain, file }), {
      clock: manualClock(),
    })
    expect(kids(bundles)).toEqual(['unavailable'])
    await bundles.start()
    expect(kids(bundles)).toEqual([first.kid])
    expect(bundles.ready).toBe(true)
    expect(bundles.find('other.example')).toEqual({ state: 'unknown' })
  })

  test('refresh() takes a new file over, also behind a symlink that is swapped, with a new generation', async () => {
    const { path: old, directory } = await bundleFile(bundleDocument([first]))
    const link = join(directory, 'current')
    await symlink(old, link)
    await using bundles = new TrustBundles(
      identity({ trustDomain: names.trustDomain, file: link }),
      { clock: manualClock() },
    )
    await bundles.start()
    const before = bundles.status()[0]?.generation ?? 0
    await writeFile(join(directory, 'next.json'), bundleDocument([second]))
    await symlink(join(directory, 'next.json'), join(directory, 'swap'))
    await rename(join(directory, 'swap'), link)
    await bundles.refresh()
    expect(kids(bundles)).toEqual([second.kid])
    expect(bundles.status()[0]?.generation).toBeGreaterThan(before)
  })

  test('refresh() keeps the last good keys when the file turns bad, says why, and lets them age out', async () => {
    const clock = manualClock()
    const { path: file } = await bundleFile(bundleDocument([first]))
    await using bundles = new TrustBundles(identity({ trustDomain: names.trustDomain, file }), {
      clock,
    })
    await bundles.start()
    await writeFile(file, '{"keys": "none"}')
    clock.advance(1000)
    await bundles.refresh()
    expect(kids(bundles)).toEqual([first.kid])
    expect(bundles.status()[0]?.lastError).toContain('no array "keys"')
    expect(bundles.status()[0]?.ageMs).toBe(1000)
    clock.advance(day)
    expect(bundles.find(names.trustDomain)).toEqual({
      state: 'unavailable',
      reason: 'its bundle is stale',
    })
    expect(bundles.ready).toBe(false)
  })

  test('refresh() refuses a bundle whose sequence went back', async () => {
    const { path: file } = await bundleFile(bundleDocument([second], { spiffe_sequence: 7 }))
    await using bundles = new TrustBundles(identity({ trustDomain: names.trustDomain, file }), {
      clock: manualClock(),
    })
    await bundles.start()
    await writeFile(file, bundleDocument([first], { spiffe_sequence: 6 }))
    await bundles.refresh()
    expect(kids(bundles)).toEqual([second.kid])
    expect(bundles.status()[0]?.lastError).toContain('spiffe_sequence went back')
  })

  test('the constructor refuses two bundles of one domain', () => {
    const source = { trustDomain: names.trustDomain, file: '/nowhere' }
    expect(() => new TrustBundles(identity(source, source), { clock: manualClock() })).toThrow(
      'has two bundles',
    )
  })
})

describe('TrustBundles from an https URL', () => {
  const refresh = 300_000

  test('refresh() asks again and takes rotated keys over', async () => {
    let document = bundleDocument([first])
    await using server = await startTlsServer((_req, res) => res.end(document))
    const source = {
      trustDomain: names.trustDomain,
      url: `${server.url}/bundle`,
      refresh,
      caFile: localhostCertFile,
    }
    await using bundles = new TrustBundles(identity(source), { clock: manualClock() })
    await bundles.start()
    expect(kids(bundles)).toEqual([first.kid])
    document = bundleDocument([first, second])
    await bundles.refresh()
    expect(kids(bundles)).toEqual([first.kid, second.kid])
  })

  test.each<[string, number, Record<string, string>, string]>([
    ['an error status', 500, {}, 'got status 500'],
    [
      'a redirect, which is not followed',
      302,
      { location: 'https://elsewhere.example' },
      'got status 302',
    ],
  ])('refresh() refuses %s', async (_, status, headers, why) => {
    await using server = await startTlsServer((_req, res) =>
      res.writeHead(status, headers).end(bundleDocument([first])),
    )
    const source = {
      trustDomain: names.trustDomain,
      url: `${server.url}/b`,
      refresh,
      caFile: localhostCertFile,
    }
    await using bundles = new TrustBundles(identity(source), { clock: manualClock() })
    await bundles.start()
    expect(kids(bundles)).toEqual(['unavailable'])
    expect(bundles.status()[0]?.lastError).toContain(why)
  })

  test('refresh() refuses a server whose certificate nobody vouches for', async () => {
    await using server = await startTlsServer((_req, res) => res.end(bundleDocument([first])))
    const source = { trustDomain: names.trustDomain, url: `${server.url}/b`, refresh }
    await using bundles = new TrustBundles(identity(source), { clock: manualClock() })
    await bundles.start()
    expect(kids(bundles)).toEqual(['unavailable'])
    expect(bundles.status()[0]?.lastError).toMatch(/SELF_SIGNED|UNABLE_TO_VERIFY/)
  })
})
