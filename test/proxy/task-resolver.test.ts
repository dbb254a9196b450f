import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Denial } from '../../policy/types.ts'
import { createSnapshot, type Snapshot } from '../../proxy/snapshot.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import {
  createTaskResolver,
  drainable,
  type Task,
  type TaskResolver,
} from '../../proxy/task-resolver.ts'
import type { GrantStore } from '../../revocation/grant-store.ts'
import { writeConfigFolder, type ConfigFolder } from '../kit/config-folder.ts'
import { agent as anAgent } from '../kit/decide-input.ts'
import { manualClock, type ManualClock } from '../kit/manual-clock.ts'
import { childClaims, names, signGrant } from '../kit/tokens.ts'

let folder: ConfigFolder
let snapshot: Snapshot
let clock: ManualClock
let stored: Map<string, string>
let asked: number
let isDown: boolean
let resolver: TaskResolver

beforeEach(async () => {
  folder = await writeConfigFolder()
  snapshot = await snapshotOf({})
  clock = manualClock()
  stored = new Map()
  asked = 0
  isDown = false
  resolver = createTaskResolver({ store, clock })
})
afterEach(async () => {
  await snapshot[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})

describe('TaskResolver.resolve()', () => {
  test('takes the grant that the request carries, and asks no store', async () => {
    expect(await resolve({ 'Task-Grant': grant('task-1') })).toMatchObject({
      carrier: 'task-grant',
      chain: { leaf: { txn: 'task-1' } },
    })
    expect(asked).toBe(0)
  })

  test.each([
    ['its id', { 'Task-Id': 'task-1' }, undefined, 'task-id'],
    ['the path', {}, 'task-1', 'path'],
    ['both', { 'Task-Id': 'task-1' }, 'task-1', 'task-id'],
  ])('finds the stored grant by %s', async (_, headers, pathTxn, carrier) => {
    stored.set('task-1', grant('task-1'))
    expect(await resolve(headers, { pathTxn })).toMatchObject({
      carrier,
      chain: { leaf: { txn: 'task-1' } },
    })
  })

  test('refuses without a carrier', async () => {
    expect(await resolve({})).toMatchObject({ code: 'task-grant-required' })
  })

  test('refuses when carrier and grant name different tasks', async () => {
    const headers = { 'Task-Grant': grant('task-1'), 'Task-Id': 'task-2' }
    expect(await resolve(headers)).toMatchObject({
      code: 'task-conflict',
      detail: 'the task selector and the grant name different tasks',
    })
  })

  test('refuses when the store gives the grant of another task', async () => {
    stored.set('task-1', grant('task-2'))
    expect(await resolve({ 'Task-Id': 'task-1' })).toMatchObject({ code: 'task-conflict' })
  })

  test('tells a guess nothing: a missing grant and one of somebody else have one code', async () => {
    stored.set('task-2', grant('task-2', { sub: 'spiffe://example.org/agent/other' }))
    const missing = await resolve({ 'Task-Id': 'task-1' })
    const foreign = await resolve({ 'Task-Id': 'task-2' })
    expect([missing, foreign]).toMatchObject([
      { code: 'task-grant-invalid', detail: 'no grant of this task is stored' },
      { code: 'task-grant-invalid', detail: expect.stringContaining('subject is another agent') },
    ])
  })

  test('asks the store again after five seconds', async () => {
    stored.set('task-1', grant('task-1'))
    await resolve({ 'Task-Id': 'task-1' })
    clock.advance(4_999)
    await resolve({ 'Task-Id': 'task-1' })
    expect(asked).toBe(1)
    clock.advance(1)
    await resolve({ 'Task-Id': 'task-1' })
    expect(asked).toBe(2)
  })

  test('goes on with what it read while the store is down, and refuses other tasks', async () => {
    stored.set('task-1', grant('task-1'))
    await resolve({ 'Task-Id': 'task-1' })
    isDown = true
    clock.advance(60_000)
    expect(await resolve({ 'Task-Id': 'task-1' })).toMatchObject({ carrier: 'task-id' })
    expect(await resolve({ 'Task-Id': 'task-2' })).toMatchObject({
      code: 'control-plane-stale',
      detail: 'the grant store did not answer',
    })
  })

  test('never brings back a grant that the store had lost before it went down', async () => {
    stored.set('task-1', grant('task-1'))
    await resolve({ 'Task-Id': 'task-1' })
    stored.clear()
    clock.advance(5_000)
    expect(await resolve({ 'Task-Id': 'task-1' })).toMatchObject({ code: 'task-grant-invalid' })
    isDown = true
    expect(await resolve({ 'Task-Id': 'task-1' })).toMatchObject({ code: 'control-plane-stale' })
  })
})

describe('TaskResolver.resolve() of a sub-agent', () => {
  const delegation = { max_depth: 2, to: ['spiffe://example.org/agent/**'] }
  const planner = 'spiffe://example.org/agent/planner'
  const middleman = 'spiffe://example.org/agent/middleman'
  let root: string
  let middle: string
  let leaf: string
  beforeEach(() => {
    root = grant('root', { sub: planner, delegation })
    middle = child(root, 'middle', { sub: middleman })
    leaf = child(middle, 'leaf')
    for (const [txn, compact] of Object.entries({ root, middle, leaf })) stored.set(txn, compact)
  })

  test('finds what is above it in the store, and gives one chain, the same each time', async () => {
    const first = await resolve({ 'Task-Id': 'leaf' })
    expect(first).toMatchObject({
      chain: {
        leaf: { txn: 'leaf' },
        links: [{ txn: 'root' }, { txn: 'middle' }, { txn: 'leaf' }],
        subjects: expect.arrayContaining(['task:root', 'task:middle', `agent:${planner}`]),
      },
    })
    const again = await resolve({ 'Task-Grant': leaf })
    if ('outcome' in first || 'outcome' in again) throw new Error('Expected a task')
    expect(again.chain).toBe(first.chain)
    expect(asked).toBe(3)
  })

  test('takes what is above it from the request, and the rest from the store', async () => {
    stored.clear()
    expect(
      await resolve({ 'Task-Grant': leaf, 'Task-Grant-Chain': `${root}, ${middle}` }),
    ).toMatchObject({ chain: { links: [{ txn: 'root' }, { txn: 'middle' }, { txn: 'leaf' }] } })
    expect(asked).toBe(0)
    stored.set('root', root)
    expect(await resolve({ 'Task-Grant': leaf, 'Task-Grant-Chain': middle })).toMatchObject({
      chain: { leaf: { txn: 'leaf' } },
    })
    expect(asked).toBe(1)
  })

  test('refuses a presented grant that is not above it', async () => {
    const conflict = {
      code: 'task-conflict',
      detail: 'Task-Grant-Chain: a grant in it is no ancestor of the task',
    }
    const other = grant('other', { delegation })
    expect(await resolve({ 'Task-Id': 'leaf', 'Task-Grant-Chain': other })).toMatchObject(conflict)
    expect(await resolve({ 'Task-Grant': leaf, 'Task-Grant-Chain': leaf })).toMatchObject(conflict)
    stored.set('plain', grant('plain'))
    expect(await resolve({ 'Task-Id': 'plain', 'Task-Grant-Chain': root })).toMatchObject(conflict)
  })

  test('refuses a presented grant that nobody signed', async () => {
    const [header, payload] = middle.split('.')
    const [, , signature] = root.split('.')
    expect(
      await resolve({
        'Task-Grant': leaf,
        'Task-Grant-Chain': `${header}.${payload}.${signature}`,
      }),
    ).toMatchObject({
      code: 'task-grant-invalid',
      detail: 'Task-Grant-Chain: its signature does not verify',
    })
  })

  test('refuses when one above it is not stored, or is another grant by now', async () => {
    stored.delete('root')
    expect(await resolve({ 'Task-Id': 'leaf' })).toMatchObject({
      code: 'task-grant-invalid',
      detail: 'ancestor 1: no grant of this task is stored',
    })
    stored.set('root', grant('root', { sub: planner, delegation }))
    expect(await resolve({ 'Task-Id': 'leaf' })).toMatchObject({
      code: 'task-grant-invalid',
      detail: 'link 2 of 3: claim prf: is not its parent',
    })
    stored.set('middle', leaf)
    expect(await resolve({ 'Task-Id': 'leaf' })).toMatchObject({ code: 'task-grant-invalid' })
  })

  test('waits for a store that is down, and goes on with what it read before', async () => {
    isDown = true
    expect(await resolve({ 'Task-Grant': leaf })).toMatchObject({
      code: 'control-plane-stale',
      detail: 'ancestor 1: the grant store did not answer',
    })
    isDown = false
    await resolve({ 'Task-Grant': leaf })
    isDown = true
    clock.advance(60_000)
    expect(await resolve({ 'Task-Grant': leaf })).toMatchObject({
      chain: { leaf: { txn: 'leaf' } },
    })
  })

  test('gives what has expired, and what hangs on it, to the grantee alone', async () => {
    const iat = Math.floor(Date.now() / 1000) - 700
    root = grant('root', { sub: planner, delegation, iat, exp: iat + 600 })
    stored.set('root', root)
    stored.set('leaf', child(root, 'leaf', { iat, exp: iat + 600 }))
    expect(await resolve({ 'Task-Id': 'leaf' })).toMatchObject({
      chain: { expiresAtMs: (iat + 600) * 1000 },
    })
    const foreign = { code: 'task-grant-invalid', detail: 'its subject is another agent' }
    expect(await resolve({ 'Task-Id': 'root' })).toMatchObject(foreign)
    expect(await resolve({ 'Task-Grant': root })).toMatchObject(foreign)
  })

  test('refuses one that an agent above it signed for its own use', async () => {
    await swap({ approvers: `approvers: [{ iss: "${names.agent}", jwks: approvers.json }]` })
    root = grant('root', { iss: names.agent, sub: planner, delegation })
    stored.set('root', root)
    expect(await resolve({ 'Task-Grant': child(root, 'leaf') })).toMatchObject({
      code: 'task-grant-invalid',
      detail: 'its approver is its subject',
    })
  })
})

describe('TaskResolver.resolve() with a grant file', () => {
  test('binds every request to that grant, named or not', async () => {
    const pinned = await pin(grant('task-1'))
    for (const headers of [{}, { 'Task-Id': 'task-1' }, { 'Task-Grant': pinned }])
      expect(await resolve(headers)).toMatchObject({
        carrier: 'file',
        chain: { leaf: { txn: 'task-1' } },
      })
    expect(asked).toBe(0)
  })

  test('refuses any other grant, and any other task', async () => {
    await pin(grant('task-1'))
    expect(await resolve({ 'Task-Grant': grant('task-1') })).toMatchObject({
      code: 'task-conflict',
      detail: 'this sidecar is bound to another grant',
    })
    expect(await resolve({ 'Task-Id': 'task-2' })).toMatchObject({ code: 'task-conflict' })
    expect(await resolve({}, { pathTxn: 'task-2' })).toMatchObject({ code: 'task-conflict' })
  })

  test('refuses everything while the file is missing, also what carries a grant', async () => {
    await swap({ grants: 'grants: { file: missing.jwt }' })
    expect(await resolve({ 'Task-Grant': grant('task-1') })).toMatchObject({
      code: 'task-grant-required',
      detail: 'the grant file cannot be read',
    })
  })
})

describe('drainable()', () => {
  test('serves known tasks and refuses new ones once it drains', async () => {
    const draining = drainable(resolver)
    resolver = draining
    await resolve({ 'Task-Grant': grant('known') })
    draining.drain()
    expect(await resolve({ 'Task-Grant': grant('known') })).toMatchObject({ carrier: 'task-grant' })
    expect(await resolve({ 'Task-Grant': grant('new') })).toMatchObject({
      code: 'control-plane-stale',
      detail: 'shutting down: no new task is taken',
    })
    expect(await resolve({})).toMatchObject({ code: 'task-grant-required' })
  })
})

const store: GrantStore = {
  get(txn) {
    asked += 1
    return isDown ? Promise.reject(new Error('down')) : Promise.resolve(stored.get(txn))
  },
  put: () => Promise.resolve(),
  list: () => Promise.resolve([]),
}

function grant(txn: string, claims: Readonly<Record<string, unknown>> = {}): string {
  return signGrant(folder.approver, { claims: { txn, ...claims } })
}

function child(
  parent: string,
  txn: string,
  claims: Readonly<Record<string, unknown>> = {},
): string {
  return signGrant(folder.approver, {
    claims: childClaims(parent, { sub: names.agent, txn, ...claims }),
  })
}

async function pin(compact: string): Promise<string> {
  await folder.write('grant.jwt', compact)
  await swap({ grants: 'grants: { file: grant.jwt }' })
  return compact
}

async function swap(lines: Readonly<Record<string, string>>): Promise<void> {
  const old = snapshot
  snapshot = await snapshotOf(lines)
  await old[Symbol.asyncDispose]()
}

async function snapshotOf(lines: Readonly<Record<string, string>>): Promise<Snapshot> {
  return createSnapshot({ config: await folder.load(lines), configSha: 'sha', clock: systemClock })
}

function resolve(
  headers: Readonly<Record<string, string>>,
  { pathTxn }: { readonly pathTxn?: string | undefined } = {},
): Promise<Task | Denial> {
  const upstream = snapshot.upstreams.get('api')
  if (!upstream) throw new Error('Expected the upstream')
  const req = new IncomingMessage(new Socket())
  req.rawHeaders.push(...Object.entries(headers).flat())
  const route = { name: '/api', upstream, path: '/a', query: undefined, pathTxn }
  const agent = { ...anAgent, expiresAtMs: Infinity }
  return resolver.resolve({ req, res: new ServerResponse(req) }, { agent, route, snapshot })
}
