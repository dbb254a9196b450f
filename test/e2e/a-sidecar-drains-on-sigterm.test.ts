import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openFlow } from '../kit/live-flows.ts'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { runCli, startWorld, type World } from '../kit/world.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
  await Promise.all(['T-known', 'T-new'].map((txn) => world.approve(txn)))
})
afterAll(() => world[Symbol.asyncDispose]())

function startDraining(drain: string): Promise<SidecarProcess> {
  return world.another({ settings: { shutdown: `shutdown: { drain: ${drain} }` } })
}

function get(sidecar: SidecarProcess, txn: string): Promise<Response> {
  return fetch(`${sidecar.agentUrl}/api/things`, { headers: world.headers(txn) })
}

async function expectIntact(sidecar: SidecarProcess): Promise<void> {
  const verified = await runCli(['audit', 'verify', join(sidecar.directory, 'audit.ndjson')])
  expect(verified).toMatchObject({ code: 0, stdout: expect.stringContaining('chain intact') })
}

describe('rule 43: a sidecar drains on SIGTERM', () => {
  test('it serves what it knows, takes no new task, cuts at the deadline and ends with 0', async () => {
    await using sidecar = await startDraining('4s')
    const flow = openFlow({ ...world, sidecar }, { kind: 'sse', txn: 'T-known' })
    await flow.live
    world.upstream.forget()
    sidecar.kill('SIGTERM')
    await sidecar.readyIs(false)
    expect(await (await fetch(`${sidecar.adminUrl}/readyz`)).text()).toBe('not ok: serving\n')

    const refused = await get(sidecar, 'T-new')
    expect(refused.status).toBe(503)
    expect(refused.headers.get('retry-after')).toBe('1')
    expect(await refused.json()).toMatchObject({ code: 'control-plane-stale' })
    expect(world.upstream.events.filter(({ type }) => type === 'request')).toEqual([])
    const decision = (await sidecar.audit()).findLast(({ type }) => type === 'decision')
    expect(decision).toMatchObject({
      decision: { effect: 'deny', detail: 'shutting down: no new task is taken' },
    })
    expect((await get(sidecar, 'T-known')).status).toBe(200)
    expect(await Promise.race([flow.ended, Promise.resolve('still open')])).toBe('still open')

    expect(await flow.ended).toEqual({ how: 'reset' })
    expect(await sidecar.exited).toBe(0)
    await world.upstream.seen(({ type, url }) => type === 'closed' && url === '/sse')
    expect((await sidecar.audit()).slice(-2)).toMatchObject([
      {
        type: 'outcome',
        txn: 'T-known',
        end: 'cut',
        cut: { code: 'control-plane-stale', how: 'reset' },
      },
      { type: 'stop', detail: { cut: 1 } },
    ])
    await expectIntact(sidecar)
  })

  test('a stream that ends by itself in time is not cut, and the drain ends with it', async () => {
    await using sidecar = await startDraining('10m')
    const stop = new AbortController()
    const answer = await fetch(`${sidecar.agentUrl}/api/sse`, {
      headers: world.headers('T-known'),
      signal: stop.signal,
    })
    expect(answer.status).toBe(200)
    sidecar.kill('SIGTERM')
    await sidecar.readyIs(false)
    stop.abort()
    expect(await sidecar.exited).toBe(0)
    expect((await sidecar.audit()).slice(-2)).toMatchObject([
      { type: 'outcome', end: 'client-gone' },
      { type: 'stop', detail: { cut: 0 } },
    ])
    await expectIntact(sidecar)
  })

  test('with nothing in flight it ends at once, whatever the deadline', async () => {
    await using sidecar = await startDraining('10m')
    // A connection that is kept alive is not in flight.
    expect((await get(sidecar, 'T-known')).status).toBe(200)
    sidecar.kill('SIGTERM')
    expect(await sidecar.exited).toBe(0)
    expect((await sidecar.audit()).at(-1)).toMatchObject({ type: 'stop', detail: { cut: 0 } })
    await expectIntact(sidecar)
  })
})
