import { afterAll, beforeAll, expect, test } from 'vitest'
import { startSentinelSet, type SentinelSet } from '../kit/redis-sentinel.ts'
import { untilTrue } from '../kit/until-true.ts'
import { startWorld, type World } from '../kit/world.ts'

let set: SentinelSet
let world: World
beforeAll(async () => {
  set = await startSentinelSet()
  const revocation = `revocation: { source: redis, redis: { url: "${set.url}" } }`
  world = await startWorld({ settings: { revocation } })
})
afterAll(async () => {
  await world[Symbol.asyncDispose]()
  await set[Symbol.asyncDispose]()
})

async function codeOf(txn: string): Promise<string> {
  const headers = { authorization: `Bearer ${world.svid}`, 'task-grant': world.grant(txn) }
  const answer = await fetch(`${world.sidecar.agentUrl}/api/things`, { method: 'POST', headers })
  const body: unknown = await answer.json().catch(() => ({}))
  const code = typeof body === 'object' && body !== null && 'code' in body ? body.code : undefined
  return answer.ok ? 'allowed' : String(code)
}

test('a sidecar refuses between two masters, and enforces what the second one has', async () => {
  expect(await codeOf('T-1')).toBe('allowed')
  const before = await world.cli('revoke', 'task:T-2', '-r', 'drill', '--durable', '2')
  expect(before).toMatchObject({ code: 0, stderr: '' })
  expect(before.stdout).toMatch(/^durable {3}on 2\/2 replicas$/m)
  expect(await codeOf('T-2')).toBe('task-terminated')

  const old = await set.master()
  await old.kill()
  await untilTrue(async () => (await codeOf('T-1')) === 'control-plane-stale', 'it refuses')
  expect(await codeOf('T-2')).toBe('task-terminated')
  await untilTrue(async () => (await codeOf('T-1')) === 'allowed', 'it follows the new master')
  expect(await codeOf('T-2')).toBe('task-terminated')

  const after = await world.cli('revoke', 'task:T-1', '-r', 'drill', '--durable', '2', '--json')
  const json: unknown = JSON.parse(after.stdout)
  // One replica is left of two.
  expect(after.code).toBe(4)
  expect(json).toMatchObject({ everywhere: true, durable: { replicas: 1, connected: 1 } })
  expect(await codeOf('T-1')).toBe('task-terminated')
})
