import { request } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { everything, startWorld, type World } from '../kit/world.ts'
import { names, signGrant, signSvid } from '../kit/tokens.ts'

describe('every task carrier works, and all must agree', () => {
  let world: World
  beforeAll(async () => {
    world = await startWorld()
    await world.approve('T-1')
    await world.approve('T-2')
  })
  afterAll(() => world[Symbol.asyncDispose]())

  const bearer = (): Fields => ({ authorization: `Bearer ${world.svid}` })

  test('Task-Id names a stored grant', async () => {
    const answer = await get(world, '/api/id', { ...bearer(), 'task-id': 'T-1' })
    expect(answer).toMatchObject({ status: 200, code: undefined })
    expect(await lastTask(world)).toMatchObject({ txn: 'T-1', carrier: 'task-id' })
  })

  test('Task-Grant carries a grant that is stored nowhere', async () => {
    const fields = { ...bearer(), 'task-grant': world.grant('T-carried') }
    const answer = await get(world, '/api/grant', fields)
    expect(answer).toMatchObject({ status: 200, code: undefined })
    expect(await lastTask(world)).toMatchObject({ txn: 'T-carried', carrier: 'task-grant' })
  })

  test('the path names a stored grant, and the upstream does not see that part', async () => {
    const answer = await get(world, '/t/T-1/api/path', bearer())
    expect(answer).toMatchObject({ status: 200, code: undefined })
    await world.upstream.seen(({ type, url }) => type === 'request' && url === '/path')
    expect(await lastTask(world)).toMatchObject({ txn: 'T-1', carrier: 'path' })
  })

  test('all three together are fine when they agree', async () => {
    const fields = { ...bearer(), 'task-grant': world.grant('T-1'), 'task-id': 'T-1' }
    const answer = await get(world, '/t/T-1/api/all', fields)
    expect(answer).toMatchObject({ status: 200, code: undefined })
    expect(await lastTask(world)).toMatchObject({ txn: 'T-1', carrier: 'task-grant' })
  })

  test('two carriers that disagree are a conflict, whichever they are', async () => {
    const grant = world.grant('T-1')
    expect(await refusal('/t/T-1/api/refused', { 'task-id': 'T-2' })).toMatchObject(conflict)
    expect(await refusal('/api/refused', { 'task-grant': grant, 'task-id': 'T-2' })).toMatchObject(
      conflict,
    )
    expect(await refusal('/t/T-2/api/refused', { 'task-grant': grant })).toMatchObject(conflict)
    const all = { 'task-grant': grant, 'task-id': 'T-1' }
    expect(await refusal('/t/T-2/api/refused', all)).toMatchObject(conflict)
  })

  test('a field that stands twice is a conflict, even with one value', async () => {
    expect(await refusal('/api/refused', { 'task-id': ['T-1', 'T-2'] })).toMatchObject(conflict)
    expect(await refusal('/api/refused', { 'task-id': ['T-1', 'T-1'] })).toMatchObject(conflict)
    const grant = world.grant('T-1')
    expect(await refusal('/api/refused', { 'task-grant': [grant, grant] })).toMatchObject(conflict)
  })

  test('no carrier needs one', async () => {
    expect(await refusal('/api/refused')).toMatchObject({
      ...required,
      decision: { detail: 'no task carrier' },
    })
  })

  test('a task that is not stored and a grant of another agent read the same', async () => {
    const other = { sub: 'spiffe://example.org/agent/other' }
    await world.approve('T-other', other)
    const unknown = await refusal('/api/refused', { 'task-id': 'T-none' })
    expect(unknown).toMatchObject(invalid)
    const carried = world.grant('T-3', other)
    for (const fields of [{ 'task-id': 'T-other' }, { 'task-grant': carried }]) {
      const foreign = await refusal('/api/refused', fields)
      expect(foreign).toMatchObject({ ...invalid, message: unknown.message })
    }
  })

  test('a grant that nobody trusted signed, or for another proxy, is not accepted', async () => {
    const claims = { txn: 'T-1', authorization_details: everything(world.upstream.url) }
    const forged = signGrant(world.agentAuthority, {
      header: { kid: world.approver.kid },
      claims,
    })
    expect(await refusal('/api/refused', { 'task-grant': forged })).toMatchObject(invalid)
    const elsewhere = world.grant('T-1', { aud: 'spiffe://example.org/another' })
    expect(await refusal('/api/refused', { 'task-grant': elsewhere })).toMatchObject(invalid)
    expect(await refusal('/api/refused', { 'task-grant': 'not-a-jws' })).toMatchObject(invalid)
  })

  test('a grant whose time is over is expired, carried and stored', async () => {
    const seconds = Math.floor(Date.now() / 1000)
    const past = { iat: seconds - 7_200, exp: seconds - 3_600 }
    const fields = { 'task-grant': world.grant('T-past', past) }
    expect(await refusal('/api/refused', fields)).toMatchObject(expired)
    await world.approve('T-past', past)
    expect(await refusal('/api/refused', { 'task-id': 'T-past' })).toMatchObject(expired)
    // Who stole it learns no more of it than of one that never expired (TG-9).
    const thief = signSvid(world.agentAuthority, { claims: { sub: `${names.agent}-thief` } })
    const stolen = { authorization: `Bearer ${thief}` }
    expect(await refusal('/api/refused', { ...fields, ...stolen })).toMatchObject(invalid)
    expect(await refusal('/api/refused', { 'task-id': 'T-past', ...stolen })).toMatchObject(invalid)
  })

  test('nothing of what was refused above came to the upstream', async () => {
    await get(world, '/api/last', { ...bearer(), 'task-id': 'T-1' })
    // The upstream reports in order: all before it is known now.
    await world.upstream.seen(({ url }) => url === '/last')
    expect(world.upstream.events.filter(({ url }) => url?.includes('refused'))).toEqual([])
  })

  /** What the agent got, and the decision on record. */
  async function refusal(path: string, fields: Fields = {}): Promise<Refusal> {
    const answer = await get(world, path, { ...bearer(), ...fields })
    return { ...answer, decision: (await lastDecision(world))?.['decision'] }
  }
})

const conflict = refused('task-conflict')
const expired = refused('task-expired')
const invalid = refused('task-grant-invalid')
const required = refused('task-grant-required')

function refused(code: string): object {
  return { status: 403, code, decision: { effect: 'deny', code } }
}

describe('a sidecar that is bound to one grant by a file', () => {
  test('serves without a carrier, and refuses another grant or task', async () => {
    await using first = await startWorld()
    const compact = first.grant('T-file')
    await using bound = await first.another({
      settings: { grants: 'grants: { file: grant.jwt }' },
      files: { 'grant.jwt': `${compact}\n` },
    })
    const world = { sidecar: bound }
    const bearer = { authorization: `Bearer ${first.svid}` }
    expect(await get(world, '/api/a', bearer)).toMatchObject({ status: 200 })
    expect(await lastTask(world)).toMatchObject({ txn: 'T-file', carrier: 'file' })

    const same = { ...bearer, 'task-grant': compact, 'task-id': 'T-file' }
    expect(await get(world, '/t/T-file/api/a', same)).toMatchObject({ status: 200 })

    const other = { status: 403, code: 'task-conflict' }
    const another = { ...bearer, 'task-grant': first.grant('T-else') }
    expect(await get(world, '/api/a', another)).toMatchObject(other)
    // The same task, but not the grant that this pod is bound to.
    const again = { ...bearer, 'task-grant': first.grant('T-file') }
    expect(await get(world, '/api/a', again)).toMatchObject(other)
    await first.approve('T-else')
    expect(await get(world, '/api/a', { ...bearer, 'task-id': 'T-else' })).toMatchObject(other)
    expect(await get(world, '/t/T-else/api/a', bearer)).toMatchObject(other)
    expect(await lastDecision(world)).toMatchObject({
      decision: { effect: 'deny', code: 'task-conflict' },
    })
  })

  test('refuses when the grant of the file is of another agent', async () => {
    await using first = await startWorld()
    const foreign = signGrant(first.approver, {
      claims: {
        sub: 'spiffe://example.org/agent/other',
        authorization_details: everything(first.upstream.url),
      },
    })
    await using bound = await first.another({
      settings: { grants: 'grants: { file: grant.jwt }' },
      files: { 'grant.jwt': foreign },
    })
    const answer = await get({ sidecar: bound }, '/api/a', {
      authorization: `Bearer ${first.svid}`,
    })
    expect(answer).toMatchObject({ status: 403, code: 'task-grant-invalid' })
  })
})

type Fields = Readonly<Record<string, string | readonly string[]>>
type Served = Pick<World, 'sidecar'>

interface Answer {
  readonly status: number | undefined
  readonly code: unknown
  readonly message: unknown
}

interface Refusal extends Answer {
  readonly decision: unknown
}

/** `node:http`, because `fetch` joins repeated fields into one. */
function get({ sidecar }: Served, path: string, fields: Fields): Promise<Answer> {
  const headers = Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      typeof value === 'string' ? value : [...value],
    ]),
  )
  return new Promise((resolve, reject) => {
    request(`${sidecar.agentUrl}${path}`, { headers, agent: false }, (res) => {
      let text = ''
      res.setEncoding('utf8')
      res.on('data', (chunk: string) => {
        text += chunk
      })
      res.on('error', reject)
      res.on('end', () => {
        const { code, message }: Partial<Answer> = JSON.parse(text)
        resolve({ status: res.statusCode, code, message })
      })
    })
      .on('error', reject)
      .end()
  })
}

async function lastDecision({
  sidecar,
}: Served): Promise<Readonly<Record<string, unknown>> | undefined> {
  return (await sidecar.audit()).findLast(({ type }) => type === 'decision')
}

async function lastTask(world: Served): Promise<unknown> {
  return (await lastDecision(world))?.['task']
}
