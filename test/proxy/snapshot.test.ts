// oxlint-disable-next-line import/no-unassigned-import -- adds `request()` to what dispatches
import 'undici'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createSnapshot, type Snapshot } from '../../proxy/snapshot.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { writeConfigFolder, type ConfigFolder } from '../kit/config-folder.ts'
import { names, signGrant } from '../kit/tokens.ts'

let folder: ConfigFolder
beforeEach(async () => {
  folder = await writeConfigFolder()
})
afterEach(() => folder[Symbol.asyncDispose]())

describe('createSnapshot()', () => {
  test('builds everything that the configuration means', async () => {
    await using snapshot = await build()
    expect(snapshot.audience).toBe(names.audience)
    expect(snapshot.configSha).toBe('sha')
    expect(snapshot.bundles.ready).toBe(true)
    expect(snapshot.engine.healthy).toBe(true)
    expect(snapshot.grantFile).toBeUndefined()
    expect(snapshot.mintKeys?.jwks().keys).toHaveLength(1)
    const upstreams = [...snapshot.upstreams.values()]
    expect(
      upstreams.map(({ facts, authority, issuer }) => [facts, authority, issuer.kind]),
    ).toEqual([
      [
        { name: 'api', kind: 'rest', origin: names.upstream, sensitivity: 'internal' },
        'api.example.org',
        'mint',
      ],
      [
        { name: 'keyed', kind: 'rest', origin: `${names.upstream}:8443`, sensitivity: 'internal' },
        'api.example.org:8443',
        'inject',
      ],
    ])
  })

  test('verifies grants of its approvers alone', async () => {
    await using snapshot = await build()
    const other = await writeConfigFolder()
    const own = await snapshot.grants.verify(signGrant(folder.approver))
    expect(own).toMatchObject({ leaf: { agent: names.agent } })
    expect(await snapshot.grants.verify(signGrant(other.approver))).toMatchObject({
      code: 'task-grant-invalid',
    })
    await other[Symbol.asyncDispose]()
  })

  test('binds to the grant of a file when there is one', async () => {
    await folder.write('grant.jwt', 'a.b.c')
    await using snapshot = await build({ grants: 'grants: { file: grant.jwt }' })
    expect(snapshot.grantFile?.compact()).toBe('a.b.c')
  })

  test.each([
    ['the secret is missing', 'static.key', '', 'ERR_CREDENTIAL_UNAVAILABLE'],
    ['the secret has two lines', 'static.key', 'a\nb', 'ERR_CREDENTIAL_UNAVAILABLE'],
    ['the mint keys are none', 'mint.json', '{}', 'ERR_CREDENTIAL_UNAVAILABLE'],
    ['the approver keys are no JSON', 'approvers.json', 'hush-hush', 'ERR_SNAPSHOT'],
    ['the approver keys are empty', 'approvers.json', '{"keys":[]}', 'ERR_SNAPSHOT'],
  ])('rejects when %s, and quotes nothing of the file', async (_, name, text, code) => {
    await folder.write(name, text)
    const error: unknown = await build().catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code })
    expect(String(error)).not.toContain('hush')
  })

  test('rejects when an upstream is a private address', async () => {
    const upstreams =
      'upstreams: [{ name: api, url: "http://127.0.0.1:1", credential: { none: true } }]'
    const routes = 'routes: [{ prefix: /api, upstream: api }]'
    await expect(build({ upstreams, routes })).rejects.toMatchObject({
      code: 'ERR_UPSTREAM_ADDRESS',
    })
  })

  test('rejects when its policies do not compile, with file and line', async () => {
    await folder.write('bad.cedar', 'permit (principal, action, resource)\nwhen { oops };')
    await expect(build({ policy: `policy: { directory: . }` })).rejects.toThrow(
      /bad\.cedar:\d+:\d+ /,
    )
  })

  test('compiles its policies in the background to the same end', async () => {
    await using here = await build()
    await using there = await createSnapshot({
      config: await folder.load({}),
      configSha: 'sha',
      clock: systemClock,
      inBackground: true,
    })
    expect(there.engine.policySetSha).toBe(here.engine.policySetSha)
    expect(there.engine.policyIds).toEqual(here.engine.policyIds)
    expect(there.engine.healthy).toBe(true)
  })

  test('rejects in the background what does not compile, with file and line', async () => {
    await folder.write('bad.cedar', 'permit (principal, action, resource)\nwhen { oops };')
    const config = await folder.load({ policy: 'policy: { directory: . }' })
    const building = createSnapshot({
      config,
      configSha: 'sha',
      clock: systemClock,
      inBackground: true,
    })
    await expect(building).rejects.toThrow(/bad\.cedar:\d+:\d+ /)
  })

  test('starts without a bundle, and trusts nobody until it comes', async () => {
    await folder.write('bundle.json', '{}')
    await using snapshot = await build()
    expect(snapshot.bundles.ready).toBe(false)
  })

  test('closes its connections when it is disposed', async () => {
    const snapshot = await build()
    await snapshot[Symbol.asyncDispose]()
    const client = snapshot.upstreams.get('api')?.client
    await expect(client?.dispatcher.request({ path: '/', method: 'GET' })).rejects.toMatchObject({
      code: 'ERR_UPSTREAM_CLOSED',
    })
  })
})

async function build(lines: Readonly<Record<string, string>> = {}): Promise<Snapshot> {
  return createSnapshot({ config: await folder.load(lines), configSha: 'sha', clock: systemClock })
}
