import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { injectedSecret, runCli, startWorld, temporaryFile, type World } from '../kit/world.ts'

let world: World
let sidecar: SidecarProcess
let policies = ''
beforeAll(async () => {
  world = await startWorld()
  await world.approve('T-1')
})
afterAll(() => world[Symbol.asyncDispose]())
beforeEach(async () => {
  policies = await mkdtemp(join(tmpdir(), 'chaperone-policies-'))
  await writeFile(join(policies, 'a.cedar'), permitAll)
  sidecar = await world.another({ settings: { policy: `policy: { directory: "${policies}" }` } })
})
afterEach(async () => {
  await sidecar[Symbol.asyncDispose]()
  await rm(policies, { recursive: true })
})

const permitAll = `@id("test/all")
@reason("The test allows it.")
permit (principal is Chaperone::Agent, action, resource is Chaperone::Upstream);
`
const forbidLlm = `@id("test/no-llm")
@reason("The llm is closed today.")
forbid (principal is Chaperone::Agent, action, resource is Chaperone::Upstream)
when { resource == Chaperone::Upstream::"llm" };
`
const poll = { timeout: 30_000, interval: 50 }

function get(path: string): Promise<Response> {
  return fetch(`${sidecar.agentUrl}${path}`, { headers: world.headers('T-1') })
}

/** The upstream's echo of a call with a static key. */
async function upstreamSaw(): Promise<string> {
  return (await get('/llm/things')).text()
}

async function reloads(result: 'applied' | 'rejected'): Promise<number> {
  const text = await (await fetch(`${sidecar.adminUrl}/metrics`)).text()
  const name = `chaperone_config_reloads_total{result="${result}"} `
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(name))
      ?.slice(name.length) ?? 0,
  )
}

/** Replaces the file as an editor or a mount does: whole. Resolves with the new text. */
async function rewrite(from: string, to: string): Promise<string> {
  const path = configPath()
  const text = await readFile(path, 'utf8')
  expect(text).toContain(from)
  const changed = text.replace(from, to)
  await writeFile(`${path}.new`, changed)
  await rename(`${path}.new`, path)
  return changed
}

function configPath(): string {
  return join(sidecar.directory, 'chaperone.yaml')
}

function placeOf(needle: string, text: string): string {
  const before = text.slice(0, text.indexOf(needle)).split('\n')
  return `${before.length}:${(before.at(-1) ?? '').length + 1}`
}

async function configSha(): Promise<string | undefined> {
  const text = await (await fetch(`${sidecar.adminUrl}/readyz?verbose`)).text()
  return /config: sha256 ([0-9a-f]+)/.exec(text)?.[1]
}

describe('a bad configuration never replaces a good one', () => {
  test('chaperone run ends with 3 and names the place of every problem', async () => {
    const path = await temporaryFile(
      'chaperone.yaml',
      'version: 2\ntrustDomain: example.org\nroutez: []\n',
    )
    const { code, stdout, stderr } = await runCli(['run', '-c', path])
    await rm(path)
    expect(code).toBe(3)
    expect(stdout).toBe('')
    expect(stderr).toContain(`${path}:1:10 version: Expected 1`)
    expect(stderr).toContain(`${path}:3:1 routez: Unknown setting; did you mean "routes"?`)
    expect(stderr).not.toMatch(/^ +at /m)
  })

  test('a file that turns bad is rejected with its place, by itself and on SIGHUP', async () => {
    const sha = await configSha()
    const changed = await rewrite('drain: 1s', 'drain: soon')
    const place = `${configPath()}:${placeOf('soon', changed)} shutdown.drain: `
    await expect.poll(() => reloads('rejected'), poll).toBe(1)
    expect(sidecar.output()).toContain(place)
    const before = sidecar.output().length
    sidecar.kill('SIGHUP')
    await expect.poll(() => reloads('rejected'), poll).toBe(2)
    expect(sidecar.output().slice(before)).toContain(place)
    expect(await reloads('applied')).toBe(0)
    expect(await configSha()).toBe(sha)
    expect((await get('/api/things')).status).toBe(200)
    await sidecar.readyIs(true)
  })

  test('a file that is gone is rejected too', async () => {
    await rm(configPath())
    await expect.poll(() => reloads('rejected'), poll).toBe(1)
    expect(sidecar.output()).toContain(`${configPath()}:1:1 The file does not exist`)
    expect((await get('/api/things')).status).toBe(200)
  })

  test('a good change is applied, without a failed request', async () => {
    expect((await get('/new/things')).status).not.toBe(200)
    const sha = await configSha()
    const statuses: number[] = []
    const stop = new AbortController()
    const load = (async () => {
      while (!stop.signal.aborted) {
        const answer = await get('/api/things')
        await answer.arrayBuffer()
        statuses.push(answer.status)
        await delay(2)
      }
    })()
    await rewrite('routes:', 'routes:\n  - { prefix: /new, upstream: api }')
    await expect.poll(() => reloads('applied'), poll).toBe(1)
    await delay(100)
    stop.abort()
    await load
    expect(statuses.length).toBeGreaterThan(10)
    expect(statuses.filter((status) => status !== 200)).toEqual([])
    expect((await get('/new/things')).status).toBe(200)
    expect(await configSha()).not.toBe(sha)
    const records = await sidecar.audit()
    const config = records.filter(({ type }) => type === 'config')
    expect(config).toMatchObject([{ detail: { sha256: expect.stringMatching(/^[0-9a-f]{64}$/) } }])
  })

  test('a secret that is rotated is used without a reload', async () => {
    expect(await upstreamSaw()).toContain(injectedSecret)
    const rotated = 'static-key-rotated-9876543210'
    await writeFile(join(sidecar.directory, 'static.key'), `${rotated}\n`, { mode: 0o600 })
    await expect.poll(upstreamSaw, poll).toContain(`Bearer ${rotated}`)
    expect(await upstreamSaw()).not.toContain(injectedSecret)
    expect([await reloads('applied'), await reloads('rejected')]).toEqual([0, 0])
    expect(sidecar.output()).not.toContain(rotated)
  })

  test('a policy that is added takes effect on SIGHUP, with its reason', async () => {
    expect((await get('/llm/things')).status).toBe(200)
    await writeFile(join(policies, 'b.cedar'), forbidLlm)
    sidecar.kill('SIGHUP')
    await expect.poll(() => reloads('applied'), poll).toBe(1)
    const answer = await get('/llm/things')
    expect(answer.status).toBe(403)
    expect(await answer.json()).toMatchObject({
      code: 'policy-denied',
      message: expect.stringContaining('The llm is closed today.'),
    })
    const record = (await sidecar.audit()).findLast(({ type }) => type === 'decision')
    expect(record).toMatchObject({ decision: { effect: 'deny', policy_ids: ['test/no-llm'] } })
    expect((await get('/api/things')).status).toBe(200)
  })

  test('a policy with an error is rejected with its place, and the old set stays', async () => {
    await writeFile(join(policies, 'b.cedar'), forbidLlm.replace('forbid (', 'forbade ('))
    sidecar.kill('SIGHUP')
    await expect.poll(() => reloads('rejected'), poll).toBe(1)
    expect(sidecar.output()).toContain(`${join(policies, 'b.cedar')}:3:1 `)
    expect((await get('/llm/things')).status).toBe(200)
    await sidecar.readyIs(true)
  })

  test('a policy that names what the schema does not have is rejected with its place', async () => {
    await writeFile(
      join(policies, 'b.cedar'),
      forbidLlm.replace('resource ==', 'resource.owner =='),
    )
    sidecar.kill('SIGHUP')
    await expect.poll(() => reloads('rejected'), poll).toBe(1)
    expect(sidecar.output()).toMatch(/b\.cedar:\d+:\d+ /)
    expect((await get('/llm/things')).status).toBe(200)
  })

  test('a change of where it listens is rejected: it needs a restart', async () => {
    await rewrite('admin: "127.0.0.1:0"', 'admin: "127.0.0.2:0"')
    await expect.poll(() => reloads('rejected'), poll).toBe(1)
    expect(sidecar.output()).toContain(String.raw`A change of \"listen\" needs a restart`)
    expect((await get('/api/things')).status).toBe(200)
  })
})
