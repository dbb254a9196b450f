import { decodeJwt } from 'jose'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openFlow } from '../kit/live-flows.ts'
import { startWorld, type World } from '../kit/world.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
})
afterAll(() => world[Symbol.asyncDispose]())

/** The `credential:` subject that the upstream was given for this task. */
async function issuedFor(txn: string): Promise<string> {
  const answer = await fetch(`${world.sidecar.agentUrl}/api/echo`, { headers: world.headers(txn) })
  const { rawHeaders } = (await answer.json()) as { readonly rawHeaders: readonly string[] }
  const at = rawHeaders.findIndex((name) => name.toLowerCase() === 'authorization')
  const { iss, jti } = decodeJwt(String(rawHeaders[at + 1]).replace('Bearer ', ''))
  return `credential:${iss}#${jti}`
}

test('revoking a credential cuts what goes out with it, and the task goes on with another', async () => {
  for (const txn of ['T-1', 'T-2']) await world.approve(txn)
  const [first, other] = [await issuedFor('T-1'), await issuedFor('T-2')]
  const flow = openFlow(world, { kind: 'sse', txn: 'T-1' })
  const sibling = openFlow(world, { kind: 'sse', txn: 'T-2' })
  await Promise.all([flow.live, sibling.live])
  let siblingsEnd: unknown
  void sibling.ended.then((end) => (siblingsEnd = end))

  const { code, stdout } = await world.cli('revoke', first, '-r', 'leaked', '--rid', 'r-1')
  expect(stdout).toMatch(/^streams {3}1 cut\ndropped {3}1 credentials$/m)
  expect(code).toBe(0)
  expect(await flow.ended).toEqual({ how: 'reset' })
  const outcome = await world.sidecar.recorded(({ cut }) => cut !== undefined)
  expect(outcome).toMatchObject({ txn: 'T-1', cut: { code: 'task-terminated', rid: 'r-1' } })
  const second = await issuedFor('T-1')
  expect(second).toMatch(/^credential:https:\/\/chaperone\.example\.org#/)
  expect(second).not.toBe(first)
  expect(await issuedFor('T-2')).toBe(other)
  expect(siblingsEnd).toBeUndefined()
})

test('revoking a person ends every task that is on their behalf', async () => {
  const obo = { iss: 'https://login.example.org', sub: 'dana' }
  await world.approve('T-3', { obo })
  await world.approve('T-4', { obo: { ...obo, sub: 'eve' } })
  const flow = openFlow(world, { kind: 'sse', txn: 'T-3' })
  await flow.live
  const subject = 'approver:https://login.example.org#dana'
  const { code } = await world.cli('revoke', subject, '-r', 'left', '--yes')
  expect(code).toBe(0)
  expect(await flow.ended).toEqual({ how: 'reset' })
  const call = (txn: string) =>
    fetch(`${world.sidecar.agentUrl}/api/things`, { headers: world.headers(txn) })
  expect(await (await call('T-3')).json()).toMatchObject({ code: 'task-terminated' })
  expect((await call('T-4')).status).toBe(200)
})
