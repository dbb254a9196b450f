import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { operatorName, signLift } from '../kit/lifts.ts'
import { jwksDocument, signingKey, type SigningKey } from '../kit/tokens.ts'
import { startWorld, temporaryFile, type CliResult, type World } from '../kit/world.ts'

let world: World
let key: SigningKey
let keyPath: string

beforeAll(async () => {
  key = await signingKey()
  keyPath = await temporaryFile('operator.private.json', JSON.stringify(key.privateJwk))
  world = await startWorld({
    settings: { operators: `operators: [{ name: ${operatorName}, jwks: operators.json }]` },
    files: { 'operators.json': jwksDocument([key]) },
  })
})
afterAll(() => world[Symbol.asyncDispose]())

const poll = { timeout: 30_000, interval: 25 }
const channel = '{chaperone}:example.org:revocations'

function record(op: 'pause' | 'revoke', txn: string, rid: string): Promise<CliResult> {
  return world.cli(op, `task:${txn}`, '-r', 'odd', '--rid', rid)
}

function resume(txn: string): Promise<CliResult> {
  return world.cli('resume', `task:${txn}`, '-r', 'looked at it', '--key', keyPath)
}

async function answerTo(txn: string): Promise<readonly [status: number, code: unknown]> {
  const answer = await fetch(`${world.sidecar.agentUrl}/api/things`, {
    headers: world.headers(txn),
  })
  const body: unknown = await answer.json()
  const code = typeof body === 'object' && body !== null && 'code' in body ? body.code : undefined
  return [answer.status, code]
}

/** The lift as a message, as if it came from a commit. */
function publishLift(compact: string): Promise<string> {
  const rid = /"jti":"([^"]+)"/.exec(
    Buffer.from(compact.split('.')[1] ?? '', 'base64url').toString(),
  )?.[1]
  const envelope = { n: 99, atMs: 1, record: { rid, op: 'lift', jws: compact } }
  return world.redis.cli('PUBLISH', channel, JSON.stringify(envelope))
}

test('a paused task is refused with 503, and goes on once an operator resumes it', async () => {
  await world.approve('T-1')
  expect(await answerTo('T-1')).toEqual([200, undefined])
  await record('pause', 'T-1', 'p1')
  await expect.poll(() => answerTo('T-1'), poll).toEqual([503, 'task-paused'])
  expect(await resume('T-1')).toMatchObject({ code: 0, stderr: '' })
  await expect.poll(() => answerTo('T-1'), poll).toEqual([200, undefined])
  expect(await world.sidecar.recorded(({ type }) => type === 'lift')).toMatchObject({
    lifts: ['p1'],
    by: operatorName,
    reason: 'looked at it',
  })
  const account = await world.cli(
    'audit',
    'report',
    join(world.sidecar.directory, 'audit.ndjson'),
    '--revocation',
    'p1',
    '--against-store',
  )
  expect(account).toMatchObject({ code: 0, stderr: '' })
  expect(account.stdout).toMatch(/^lifted {6}\S+ by oncall: looked at it, lift /m)
  expect(account.stdout).toContain('acted after revocation: no\n')
})

test('an account names the sidecar that acknowledged the revocation and has no file', async () => {
  await using other = await world.another()
  await world.approve('T-8')
  await record('revoke', 'T-8', 'v8')
  const mine = await world.sidecar.recorded(({ rid }) => rid === 'v8')
  const theirs = await other.recorded(({ rid }) => rid === 'v8')
  expect(mine['recorded_epoch']).toBe(theirs['recorded_epoch'])
  const { instance } = Object(theirs['sidecar'])
  const report = (): Promise<CliResult> =>
    world.cli(
      'audit',
      'report',
      join(world.sidecar.directory, 'audit.ndjson'),
      '--revocation',
      'v8',
      '--against-store',
    )
  await expect
    .poll(async () => (await report()).stdout, poll)
    .toContain(`no-file: sidecar ${instance}: acknowledged it, and no file has its records`)
  expect((await report()).code).toBe(1)
})

test('a revoke is not undone by resume', async () => {
  await world.approve('T-2')
  await record('pause', 'T-2', 'p2')
  await record('revoke', 'T-2', 'v2')
  await expect.poll(() => answerTo('T-2'), poll).toEqual([403, 'task-terminated'])
  expect(await resume('T-2')).toMatchObject({
    code: 0,
    stderr: 'task:T-2 stays refused: revoke v2 is no pause\n',
  })
  // In force on the sidecar by then: a later record has been.
  await world.approve('T-3')
  await record('pause', 'T-3', 'p3')
  await expect.poll(() => answerTo('T-3'), poll).toEqual([503, 'task-paused'])
  expect(await answerTo('T-2')).toEqual([403, 'task-terminated'])
})

test('a lift that another key signed is ignored and reported', async () => {
  await world.approve('T-4')
  await record('pause', 'T-4', 'p4')
  await expect.poll(() => answerTo('T-4'), poll).toEqual([503, 'task-paused'])
  const stranger = await signingKey('ES256', { kid: key.kid })
  await publishLift(signLift(stranger, { claims: { lifts: ['p4'] } }))
  await expect
    .poll(() => world.sidecar.output(), poll)
    .toContain('Ignored a lift: nothing is lifted')
  expect(await answerTo('T-4')).toEqual([503, 'task-paused'])
})

test('a lift that is replayed does not lift a newer record of the subject', async () => {
  await world.approve('T-5')
  const lift = signLift(key, { claims: { lifts: ['p5'] } })
  await record('pause', 'T-5', 'p5')
  await expect.poll(() => answerTo('T-5'), poll).toEqual([503, 'task-paused'])
  await publishLift(lift)
  await expect.poll(() => answerTo('T-5'), poll).toEqual([200, undefined])
  await record('pause', 'T-5', 'p6')
  await expect.poll(() => answerTo('T-5'), poll).toEqual([503, 'task-paused'])
  await publishLift(lift)
  // A genuine lift after it is in force: the sidecar has seen the replay.
  await world.approve('T-6')
  await record('pause', 'T-6', 'p7')
  await resume('T-6')
  await expect.poll(() => answerTo('T-6'), poll).toEqual([200, undefined])
  expect(await answerTo('T-5')).toEqual([503, 'task-paused'])
})
