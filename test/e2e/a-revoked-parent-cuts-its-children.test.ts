import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openFlow, type Flow } from '../kit/live-flows.ts'
import { childClaims, jwksDocument, names, signGrant, signingKey, signSvid } from '../kit/tokens.ts'
import { everything, startWorld, type World } from '../kit/world.ts'

const planner = 'spiffe://example.org/agent/planner'
const reader = 'spiffe://example.org/agent/reader'
const writer = 'spiffe://example.org/agent/writer'
const helper = 'spiffe://example.org/agent/helper'
const delegationIss = 'https://delegation.example.org'
const delegator = await signingKey()

let world: World
beforeAll(async () => {
  world = await startWorld({
    settings: { delegation: `delegation: { iss: "${delegationIss}", jwks: delegation.json }` },
    files: { 'delegation.json': jwksDocument([delegator]) },
  })
})
afterAll(() => world[Symbol.asyncDispose]())

const delegation = { max_depth: 2, to: ['spiffe://example.org/agent/*'] }

/** The planner's task, below it the reader's, below that the writer's; each may do what the upstream has. */
async function delegate(name: string): Promise<readonly [string, string, string]> {
  const [root, middle, leaf] = [`${name}-root`, `${name}-reader`, `${name}-writer`] as const
  const lasting = { iat: Math.floor(Date.now() / 1000), jti: `grant-${name}-0000000000` }
  // Signed once: the child binds to these bytes.
  const compact = world.grant(root, { sub: planner, delegation, ...lasting })
  await store(root, compact)
  const below = signGrant(delegator, {
    claims: childClaims(compact, { sub: reader, txn: middle, iss: delegationIss }),
  })
  await store(middle, below)
  const last = signGrant(world.approver, {
    claims: childClaims(below, { sub: writer, txn: leaf, iss: names.approver }),
  })
  await store(leaf, last)
  return [root, middle, leaf]
}

async function store(txn: string, compact: string): Promise<void> {
  const expiresAt = Date.now() + 600_000
  const key = `{chaperone}:${names.trustDomain}:grant:${txn}`
  expect(await world.redis.cli('set', key, compact, 'PXAT', String(expiresAt))).toBe('OK')
}

/** The world as this agent sees it. */
function seenBy(agent: string): World {
  const svid = signSvid(world.agentAuthority, { claims: { sub: agent } })
  return {
    ...world,
    headers: (txn) => ({ authorization: `Bearer ${svid}`, 'task-id': txn }),
  }
}

async function call(agent: string, txn: string, path: string = '/api/things'): Promise<Response> {
  return fetch(`${world.sidecar.agentUrl}${path}`, { headers: seenBy(agent).headers(txn) })
}

async function open(agent: string, txn: string): Promise<Flow> {
  const flow = openFlow(seenBy(agent), { kind: 'sse', txn })
  await flow.live
  return flow
}

describe('a sub-agent', () => {
  test('works under a grant of its own, and nobody else does', async () => {
    const [root, middle, leaf] = await delegate('use')
    for (const [agent, txn] of [
      [planner, root],
      [reader, middle],
      [writer, leaf],
    ] as const)
      expect((await call(agent, txn)).status).toBe(200)
    const foreign = await call(planner, leaf)
    expect(await foreign.json()).toMatchObject({ code: 'task-grant-invalid' })
    const unknown = await call(planner, 'use-unknown')
    expect(await unknown.json()).toMatchObject({ code: 'task-grant-invalid' })
    const record = await world.sidecar.recorded(
      (one) => one['type'] === 'decision' && JSON.stringify(one).includes(`"txn":"${leaf}"`),
    )
    expect(record).toMatchObject({
      task: {
        txn: leaf,
        chain: [expect.any(String), expect.any(String), expect.any(String)],
        ancestors: [
          { txn: root, spiffe_id: planner },
          { txn: middle, spiffe_id: reader },
        ],
        approvers: [names.approver, delegationIss, names.approver],
      },
    })
  })

  test('may bring what its grant hangs on, which is then stored nowhere', async () => {
    const root = world.grant('brought-root', { sub: planner, delegation })
    const claims = childClaims(root, { sub: reader, txn: 'brought' })
    const answer = await fetch(`${world.sidecar.agentUrl}/api/brought`, {
      headers: {
        authorization: seenBy(reader).headers('')['authorization'] ?? '',
        'task-grant': signGrant(world.approver, { claims }),
        'task-grant-chain': root,
      },
    })
    expect(answer.status).toBe(200)
    const alone = await call(reader, 'brought')
    expect(await alone.json()).toMatchObject({ code: 'task-grant-invalid' })
  })

  test('is refused what a grant above it does not allow, however its own was signed', async () => {
    const narrow = everything(world.upstream.url).slice(0, 1)
    const [only] = narrow
    if (only?.type !== 'http_api') throw new Error('Expected an API')
    const compact = world.grant('narrow-root', {
      sub: planner,
      delegation,
      authorization_details: [{ ...only, paths: ['/things/*'] }],
    })
    await store('narrow-root', compact)
    const wide = childClaims(compact, { sub: reader, txn: 'narrow-child' })
    await store(
      'narrow-child',
      signGrant(world.approver, { claims: { ...wide, authorization_details: narrow } }),
    )
    const refused = await call(reader, 'narrow-child')
    expect(await refused.json()).toMatchObject({ code: 'task-grant-invalid' })
    const record = await world.sidecar.recorded(
      (one) => one['type'] === 'decision' && JSON.stringify(one).includes('link 2 of 2'),
    )
    expect(record).toMatchObject({
      decision: { detail: expect.stringContaining('than the nearest in paths') },
    })
  })

  test('never signs a root by the delegation authority', async () => {
    const root = world.grant('forged')
    const [, payload = ''] = root.split('.')
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString())
    await store('forged', signGrant(delegator, { claims: { ...claims, iss: delegationIss } }))
    const refused = await call(names.agent, 'forged')
    expect(await refused.json()).toMatchObject({ code: 'task-grant-invalid' })
  })
})

describe.each<[string, (root: string) => readonly string[], string]>([
  ['the root task', (root) => ['revoke', 'task', root], 'task-terminated'],
  [
    'the grant of the root',
    (root) => ['revoke', `grant:${names.approver}#grant-${root.replace('-root', '')}-0000000000`],
    'task-terminated',
  ],
  [
    'the task between',
    (root) => ['revoke', 'task', root.replace('root', 'reader')],
    'task-terminated',
  ],
])('chaperone revoke of %s', (what, command, code) => {
  test('cuts what is live below it, refuses the next call, and leaves another root alone', async () => {
    const name = what.replaceAll(' ', '-')
    const [[root, , leaf], [, , other]] = await Promise.all([delegate(name), delegate(`${name}-b`)])
    const [flow, unharmed] = await Promise.all([open(writer, leaf), open(writer, other)])

    const { code: exit, stdout } = await world.cli(...command(root), '-r', 'wrong', '--by', 'ops')
    expect(stdout).toContain('1 cut')
    expect(exit).toBe(0)

    expect(await flow.ended).toEqual({ how: 'reset' })
    const next = await call(writer, leaf)
    expect(next.status).toBe(403)
    expect(await next.json()).toMatchObject({ code })
    expect((await call(writer, other)).status).toBe(200)
    await expect(Promise.race([unharmed.ended, Promise.resolve('still live')])).resolves.toBe(
      'still live',
    )
  })
})

test('a pause of the parent agent suspends its sub-agents, and a quarantine isolates them', async () => {
  const [, middle, leaf] = await delegate('agent')
  const flow = await open(writer, leaf)
  const paused = await world.cli('pause', `agent:${reader}`, '-r', 'look', '--expires', '2s')
  expect(paused.code).toBe(0)
  expect(await flow.ended).toEqual({ how: 'reset' })
  for (const [agent, txn] of [
    [reader, middle],
    [writer, leaf],
  ] as const)
    expect(await (await call(agent, txn)).json()).toMatchObject({ code: 'task-paused' })
  await expect.poll(async () => (await call(writer, leaf)).status, { timeout: 30_000 }).toBe(200)
  expect((await world.cli('quarantine', `agent:${reader}`, '-r', 'bad')).code).toBe(0)
  expect(await (await call(writer, leaf)).json()).toMatchObject({ code: 'agent-quarantined' })
})

test('the end of a task above ends the streams of its sub-agents', async () => {
  const iat = Math.floor(Date.now() / 1000)
  const compact = world.grant('short-root', { sub: planner, delegation, iat, exp: iat + 6 })
  await store('short-root', compact)
  await store(
    'short-child',
    signGrant(world.approver, {
      claims: childClaims(compact, { sub: helper, txn: 'short-child' }),
    }),
  )
  const flow = await open(helper, 'short-child')
  expect(await flow.ended).toEqual({ how: 'reset' })
  expect(await (await call(helper, 'short-child')).json()).toMatchObject({ code: 'task-expired' })
})
