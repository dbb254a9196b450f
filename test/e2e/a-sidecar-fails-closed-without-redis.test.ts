import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { openFlow } from '../kit/live-flows.ts'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { runCli, startWorld, type World } from '../kit/world.ts'

/** Valid by the schema, and fast: the claim is that the bounds hold, whatever they are. */
const writesMs = 500
const readsMs = 1_000
const streamsMs = 2_000

let world: World
let sidecar: SidecarProcess
beforeAll(async () => {
  world = await startWorld()
})
afterAll(() => world[Symbol.asyncDispose]())
beforeEach(async () => {
  sidecar = await startFastSidecar()
})
afterEach(async () => {
  await sidecar[Symbol.asyncDispose]()
  world.redis.thaw()
  await world.redis.restart()
})

function startFastSidecar(): Promise<SidecarProcess> {
  const bounds = `staleAfterWrites: ${writesMs}ms, staleAfterReads: ${readsMs}ms, staleAfterStreams: ${streamsMs}ms`
  const redis = `redis: { url: "${world.redis.url}" }`
  const revocation = `revocation: { source: redis, ${redis}, syncInterval: 100ms, ${bounds} }`
  return world.another({ settings: { revocation } })
}

/** The grant travels with the request: what is refused is refused for the view, not for a grant that cannot be read. */
function grantHeaders(txn: string): Record<string, string> {
  return { authorization: `Bearer ${world.svid}`, 'task-grant': world.grant(txn) }
}

interface Call {
  readonly path: string
  readonly startedMs: number
  readonly status: number
}

async function call(
  path: string,
  { method, headers }: { readonly method: string; readonly headers: Record<string, string> },
): Promise<Call> {
  const startedMs = performance.now()
  const answer = await fetch(`${sidecar.agentUrl}/api${path}`, { method, headers })
  await answer.arrayBuffer()
  return { path, startedMs, status: answer.status }
}

/** Reads or writes without a pause until `untilMs`, and some more: a slow machine may not have come to many by then. */
async function callUntil(
  untilMs: number,
  { method, headers }: { readonly method: string; readonly headers: Record<string, string> },
): Promise<readonly Call[]> {
  const calls: Call[] = []
  for (let after = 0; after < 5; after += performance.now() > untilMs ? 1 : 0) {
    calls.push(await call(`/${method}/${calls.length}`, { method, headers }))
    await delay(10)
  }
  return calls
}

/** Every call that began later than its bound after `sinceMs` was refused and never sent. */
function expectClosedPast(
  boundMs: number,
  { calls, sinceMs }: { readonly calls: readonly Call[]; readonly sinceMs: number },
): void {
  const late = calls.filter(({ startedMs }) => startedMs > sinceMs + boundMs)
  expect(late.length).toBeGreaterThan(3)
  expect(late.filter(({ status }) => status !== 503)).toEqual([])
  const sent = new Set(world.upstream.events.map(({ url }) => url))
  expect(late.filter(({ path }) => sent.has(path))).toEqual([])
}

async function expectStale(headers: Record<string, string>): Promise<void> {
  for (const method of ['GET', 'POST']) {
    const answer = await fetch(`${sidecar.agentUrl}/api/stale`, { method, headers })
    expect(answer.status).toBe(503)
    expect(answer.headers.get('retry-after')).toBe('1')
    expect(answer.headers.get('x-should-retry')).toBe('false')
    expect(await answer.json()).toMatchObject({ code: 'control-plane-stale', retryable: true })
  }
  const record = (await sidecar.audit()).findLast(({ type }) => type === 'decision')
  expect(record).toMatchObject({ decision: { effect: 'deny', code: 'control-plane-stale' } })
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${sidecar.adminUrl}/metrics`)).text()
  const line = text.split('\n').find((one) => one.startsWith(`${name} `))
  return Number(line?.split(' ')[1])
}

/** In the end: with bounds as short as these, a slow machine meets one between two syncs. */
async function expectServed(...asked: Parameters<typeof call>): Promise<void> {
  await expect.poll(async () => (await call(...asked)).status, poll).toBe(200)
}

const missing = 'chaperone_revocation_missing_in_store'
const poll = { timeout: 30_000, interval: 25 }

describe('a sidecar fails closed without Redis', () => {
  test('killed: writes and reads are refused within their bounds, and nothing is sent past them', async () => {
    const headers = grantHeaders('T-killed')
    await expectServed('/before', { method: 'POST', headers })
    await expectServed('/before', { method: 'GET', headers })
    world.upstream.forget()
    await world.redis.kill()
    const sinceMs = performance.now()
    const untilMs = sinceMs + readsMs + 700
    const [writes, reads] = await Promise.all([
      callUntil(untilMs, { method: 'POST', headers }),
      callUntil(untilMs, { method: 'GET', headers }),
    ])
    expectClosedPast(writesMs, { calls: writes, sinceMs })
    expectClosedPast(readsMs, { calls: reads, sinceMs })
    await sidecar.readyIs(false)
    await expectStale(headers)
    const verbose = await (await fetch(`${sidecar.adminUrl}/readyz?verbose`)).text()
    expect(verbose).toContain('[-] revocation: not connected')
    expect((await fetch(`${sidecar.adminUrl}/livez`)).status).toBe(200)
  })

  test('killed: a task that only its id names is refused as well', async () => {
    await world.approve('T-stored')
    const headers = world.headers('T-stored')
    await expect
      .poll(async () => (await call('/before', { method: 'GET', headers })).status, poll)
      .toBe(200)
    await world.redis.kill()
    await sidecar.readyIs(false)
    await expectStale(headers)
    await expectStale(world.headers('T-never-read'))
  })

  test('frozen: it closes in the same bounds, and recovers by itself when thawed', async () => {
    const headers = grantHeaders('T-frozen')
    world.upstream.forget()
    world.redis.freeze()
    const sinceMs = performance.now()
    const calls = await callUntil(sinceMs + writesMs + 700, { method: 'POST', headers })
    // What was on its way to Redis when it froze may have been answered just after.
    expectClosedPast(writesMs + 100, { calls, sinceMs })
    await sidecar.readyIs(false)
    await expectStale(headers)
    world.redis.thaw()
    await sidecar.readyIs(true)
    await expectServed('/after', { method: 'POST', headers })
    expect(await metric(missing)).toBe(0)
  })

  test('restarted empty: a revoked task stays revoked, an unrelated one works again', async () => {
    const config = join(sidecar.directory, 'chaperone.yaml')
    const revoked = await runCli(['revoke', 'task:T-ended', '--reason', 'drill', '-c', config])
    expect(revoked.code).toBe(0)
    const ended = { method: 'GET', headers: grantHeaders('T-ended') }
    await expect.poll(async () => (await call('/ended', ended)).status, poll).toBe(403)
    expect(await metric(missing)).toBe(0)
    await world.redis.kill()
    await sidecar.readyIs(false)
    await world.redis.restart()
    await sidecar.readyIs(true)
    // Whichever sidecar is first: it gives back what the other then does not miss.
    const outputs = (): string => world.sidecar.output() + sidecar.output()
    await expect.poll(outputs, poll).toContain('Redis lost revocations: it is empty')
    world.upstream.forget()
    const answer = await fetch(`${sidecar.agentUrl}/api/ended`, { headers: ended.headers })
    expect(answer.status).toBe(403)
    expect(await answer.json()).toMatchObject({ code: 'task-terminated' })
    expect(world.upstream.events.filter(({ type }) => type === 'request')).toEqual([])
    const other = { method: 'POST', headers: grantHeaders('T-unrelated') }
    await expectServed('/unrelated', other)
    // What the store lost it is given back, and the alarm ends.
    const listed = async (): Promise<string> => (await runCli(['revocations', '-c', config])).stdout
    await expect.poll(listed, poll).toContain('task:T-ended')
    await expect.poll(() => metric(missing), poll).toBe(0)
  })

  test('a live stream is cut once the view is older than its bound', async () => {
    await world.approve('T-stream')
    const flow = openFlow({ ...world, sidecar }, { kind: 'sse', txn: 'T-stream' })
    await flow.live
    await world.redis.kill()
    const killedMs = performance.now()
    expect(await flow.ended).toEqual({ how: 'reset' })
    expect(performance.now() - killedMs).toBeLessThan(streamsMs + 5_000)
    await world.upstream.seen(({ type, url }) => type === 'closed' && url === '/sse')
    await expect
      .poll(async () => (await sidecar.audit()).findLast(({ type }) => type === 'outcome'), poll)
      .toMatchObject({
        txn: 'T-stream',
        end: 'cut',
        cut: { code: 'control-plane-stale', how: 'reset' },
      })
  })
})
