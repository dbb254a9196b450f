import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openFlow, type FlowEnd, type FlowKind } from '../kit/live-flows.ts'
import type { AuditLine } from '../kit/sidecar.ts'
import { names } from '../kit/tokens.ts'
import { startWorld, type World } from '../kit/world.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
})
afterAll(() => world[Symbol.asyncDispose]())

const expectedEnd: Readonly<Record<FlowKind, FlowEnd>> = {
  sse: { how: 'reset' },
  download: { how: 'reset' },
  websocket: { how: 'closed', closeCode: 1008, closeReason: 'task-terminated' },
  upload: { how: 'refused', status: 403, body: expect.stringContaining('task-terminated') },
}
const kinds: readonly FlowKind[] = ['sse', 'download', 'websocket', 'upload']

async function byCli(txn: string): Promise<void> {
  const { code, stdout } = await world.cli(
    'revoke',
    'task',
    txn,
    '-r',
    'wrong customer',
    '--by',
    'ops',
  )
  expect(stdout).toContain(`recorded  revoke task:${txn}`)
  expect(code).toBe(0)
}

async function byPublish(txn: string): Promise<void> {
  const heard = await world.redis.cli(
    'PUBLISH',
    `{chaperone}:${names.trustDomain}:revocations`,
    `task:${txn} wrong customer`,
  )
  expect(heard).toBe('1')
}

describe.each([
  ['chaperone revoke', byCli],
  ['a bare PUBLISH', byPublish],
])('%s', (_, revoke) => {
  test.each(kinds)('cuts a live %s on both sides, and refuses the next call', async (kind) => {
    const txn = `T-${kind}-${revoke.name}`
    const sibling = `${txn}-sibling`
    await Promise.all([world.approve(txn), world.approve(sibling)])
    world.upstream.forget()
    const flow = openFlow(world, { kind, txn })
    await flow.live
    const unharmed = openFlow(world, { kind: 'sse', txn: sibling })
    await unharmed.live

    await revoke(txn)

    const end = await flow.ended
    expect(end).toEqual(expectedEnd[kind])
    const closed = await world.upstream.seen((event) =>
      kind === 'websocket'
        ? event.type === 'ws-closed'
        : event.type === 'closed' && event.url === flow.path,
    )
    expect(closed.complete ?? false).toBe(false)

    const next = await fetch(`${world.sidecar.agentUrl}/api/things`, {
      headers: world.headers(txn),
    })
    expect(next.status).toBe(403)
    expect(await next.json()).toMatchObject({
      code: 'task-terminated',
      message: expect.stringContaining('revoked by an operator'),
    })
    const other = await fetch(`${world.sidecar.agentUrl}/api/things`, {
      headers: world.headers(sibling),
    })
    expect(other.status).toBe(200)
    await expect(Promise.race([unharmed.ended, Promise.resolve('still live')])).resolves.toBe(
      'still live',
    )
    await expectEvidence(txn)
    await expectAccount(txn)
  })
})

/**
 * The audit says what was cut, by which record, how, and that an attempt after it was refused. A bare message has two
 * records: the one that was heard, which cut, and the durable one that took its place.
 */
async function expectEvidence(txn: string): Promise<void> {
  const { sidecar } = world
  const isCut = (one: AuditLine): boolean =>
    one['type'] === 'outcome' && one['end'] === 'cut' && one['txn'] === txn
  await sidecar.recorded(isCut)
  const after = await sidecar.recorded(
    (one) => one['type'] === 'decision' && isTask(one['task'], txn),
  )
  const records = await sidecar.audit()
  // The first: the call after the revocation may be cut while it is being refused.
  const cut = records.find(isCut)
  const revocations = records.filter(
    (one) => one['type'] === 'revocation' && one['subject'] === `task:${txn}`,
  )
  const rids = revocations.map(({ rid }) => rid)
  expect(revocations.some((one) => one['exchanges_cut'] === 1)).toBe(true)
  for (const one of revocations)
    expect(one).toMatchObject({ op: 'revoke', reason: 'wrong customer' })
  expect(cut).toMatchObject({
    cut: { code: 'task-terminated', rid: expect.toSatisfy((rid) => rids.includes(rid)) },
  })
  const { last_up_ms: up, last_down_ms: down } = Object(cut?.['cut'])
  expect([up, down]).not.toEqual([undefined, undefined])
  expect(Math.max(up ?? 0, down ?? 0)).toBeLessThanOrEqual(0)
  expect(after).toMatchObject({
    after_revocation: true,
    decision: {
      effect: 'deny',
      code: 'task-terminated',
      rid: expect.toSatisfy((rid) => rids.includes(rid)),
    },
  })
}

/** One account, whichever of its ids is asked for. */
async function expectAccount(txn: string): Promise<void> {
  const { sidecar } = world
  const { rid } = await sidecar.recorded(
    (one) => one['subject'] === `task:${txn}` && one['recorded_epoch'] !== undefined,
  )
  const records = await sidecar.audit()
  const asked = records.flatMap((one) =>
    one['subject'] === `task:${txn}` && typeof one['rid'] === 'string' ? [one['rid']] : [],
  )
  for (const one of asked) {
    const file = join(sidecar.directory, 'audit.ndjson')
    const { code, stdout } = await world.cli('audit', 'report', file, '--revocation', one, '--json')
    expect({ code, report: JSON.parse(stdout) }).toMatchObject({
      code: 0,
      report: {
        rid,
        verdict: 'clean',
        recorded_epoch: expect.any(Number),
        sidecars: [{ exchanges_cut: expect.toSatisfy((count) => count >= 1) }],
        cut: expect.toSatisfy((cut) => cut.length >= 1),
      },
    })
  }
}

function isTask(task: unknown, txn: string): boolean {
  return typeof task === 'object' && task !== null && 'txn' in task && task.txn === txn
}

test('revoking the agent ends all its tasks', async () => {
  await Promise.all([world.approve('T-a'), world.approve('T-b')])
  const flows = ['T-a', 'T-b'].map((txn) => openFlow(world, { kind: 'sse', txn }))
  await Promise.all(flows.map(({ live }) => live))
  const pause = await world.cli(
    'pause',
    `agent:${names.agent}`,
    '-r',
    'look at it',
    '--expires',
    '2s',
  )
  expect(pause.code).toBe(0)
  for (const { ended } of flows) expect(await ended).toEqual({ how: 'reset' })
  const paused = await fetch(`${world.sidecar.agentUrl}/api/things`, {
    headers: world.headers('T-a'),
  })
  expect(paused.status).toBe(503)
  expect(await paused.json()).toMatchObject({ code: 'task-paused', retryable: true })
  expect(paused.headers.get('retry-after')).toBe('5')
})
