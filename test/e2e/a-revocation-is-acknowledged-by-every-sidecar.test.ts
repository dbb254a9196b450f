import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openFlow } from '../kit/live-flows.ts'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { startWorld, type World } from '../kit/world.ts'

const readsMs = 2_000

let world: World
let second: SidecarProcess
beforeAll(async () => {
  world = await startWorld()
  second = await world.another({})
})
afterAll(async () => {
  await second[Symbol.asyncDispose]()
  await world[Symbol.asyncDispose]()
})

/** The grant travels with the request: a refusal is for the view, not for a grant that cannot be read. */
function callSecond(txn: string): Promise<Response> {
  const headers = { authorization: `Bearer ${world.svid}`, 'task-grant': world.grant(txn) }
  return fetch(`${second.agentUrl}/api/things`, { headers })
}

async function instanceOf(sidecar: SidecarProcess): Promise<string> {
  const start = await sidecar.recorded(({ type }) => type === 'start')
  return (start as { readonly sidecar: { readonly instance: string } }).sidecar.instance
}

async function registered(): Promise<readonly string[]> {
  const { stdout } = await world.cli('status', '--json')
  const status: { readonly sidecars: readonly { readonly instance: string }[] } = JSON.parse(stdout)
  return status.sidecars.map(({ instance }) => instance)
}

const poll = { timeout: 30_000, interval: 50 }

describe('a revocation is acknowledged by every sidecar', () => {
  test('revoke says how many enforce it and what was cut, and every next call is refused', async () => {
    const both = await Promise.all([instanceOf(world.sidecar), instanceOf(second)])
    await expect.poll(registered, poll).toEqual(expect.arrayContaining(both))
    await world.approve('T-1')
    const flow = openFlow(world, { kind: 'sse', txn: 'T-1' })
    await flow.live
    const { code, stdout, stderr } = await world.cli('revoke', 'task:T-1', '-r', 'runaway')
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^enforced {2}2\/2 sidecars within \d+ ms \(p50 \d+ ms\)$/m)
    expect(stdout).toMatch(/^streams {3}1 cut$/m)
    expect(stdout).toMatch(/^dropped {3}1 credentials$/m)
    expect(code).toBe(0)
    // Confirmed means in force: no poll.
    const refused = await callSecond('T-1')
    expect(refused.status).toBe(403)
    expect(await refused.json()).toMatchObject({ code: 'task-terminated' })
    expect(await flow.ended).toEqual({ how: 'reset' })
  })

  test('a frozen sidecar is named with exit 4, and past its bound it refuses by itself', async () => {
    const frozen = await instanceOf(second)
    expect((await callSecond('T-bystander')).status).toBe(200)
    second.kill('SIGSTOP')
    try {
      const { code, stdout } = await world.cli('revoke', 'task:T-2', '-r', 'runaway', '--json')
      expect(code).toBe(4)
      const report: unknown = JSON.parse(stdout)
      expect(report).toMatchObject({
        subject: 'task:T-2',
        everywhere: false,
        enforced: {
          sidecars: 2,
          confirmed: [{ instance: await instanceOf(world.sidecar), cut: 0 }],
          unconfirmed: [{ instance: frozen }],
        },
      })
      const { recorded_at: recordedAt, enforced } = report as {
        readonly recorded_at: string
        readonly enforced: { readonly unconfirmed: readonly { readonly refuses_by: string }[] }
      }
      const boundMs = Date.parse(enforced.unconfirmed[0]?.refuses_by ?? '') - Date.parse(recordedAt)
      expect(boundMs).toBe(readsMs)
      const status = await world.cli('status')
      expect(status.code).toBe(4)
      expect(status.stdout).toContain(`${frozen} is silent: last seen `)
      // Cut off from Redis when it wakes up: nothing but its own clock can tell it.
      await world.redis.kill()
    } finally {
      second.kill('SIGCONT')
    }
    const stale = await callSecond('T-bystander')
    expect(stale.status).toBe(503)
    expect(await stale.json()).toMatchObject({ code: 'control-plane-stale' })
  })
})
