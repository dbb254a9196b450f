import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { redisKeys } from '../../revocation/redis-keys.ts'
import { operatorName } from '../kit/lifts.ts'
import { jwksDocument, names, signingKey, type SigningKey } from '../kit/tokens.ts'
import { runCli, startWorld, temporaryFile, type CliResult, type World } from '../kit/world.ts'

let world: World
let key: SigningKey
let keyPath: string
let strangerPath: string

beforeAll(async () => {
  key = await signingKey()
  const stranger = await signingKey()
  keyPath = await temporaryFile('operator.private.json', JSON.stringify(key.privateJwk))
  strangerPath = await temporaryFile('stranger.private.json', JSON.stringify(stranger.privateJwk))
  world = await startWorld({
    settings: { operators: `operators: [{ name: ${operatorName}, jwks: operators.json }]` },
    files: { 'operators.json': jwksDocument([key]) },
  })
})
afterAll(() => world[Symbol.asyncDispose]())

const why = ['-r', 'looked at it'] as const

function record(op: string, subject: string, rid: string): Promise<CliResult> {
  return world.cli(op, subject, '-r', 'odd', '--by', 'ops', '--rid', rid)
}

function signed(...args: readonly string[]): Promise<CliResult> {
  return world.cli(...args, ...why, '--key', keyPath)
}

async function rids(): Promise<readonly string[]> {
  const { stdout } = await world.cli('revocations', '--json')
  return stdout.split('\n').flatMap((line) => /"rid":"([^"]+)"/.exec(line)?.[1] ?? [])
}

describe('chaperone resume', () => {
  test('ends every pause on exactly the subject, says which, and leaves the rest', async () => {
    await record('pause', 'task:T-1', 'p1')
    await record('pause', 'task:T-1', 'p2')
    await record('revoke', 'task:T-1', 'v1')
    await record('pause', 'task:T-10', 'p3')
    const { code, stdout, stderr } = await signed('resume', 'task:T-1')
    expect(code).toBe(0)
    expect(stderr).toBe('task:T-1 stays refused: revoke v1 is no pause\n')
    expect(stdout).toContain('lifted  pause task:T-1 "odd" by ops  p1\n')
    expect(stdout).toContain('lifted  pause task:T-1 "odd" by ops  p2\n')
    expect(stdout).toMatch(/^recorded at \d{4}-.*Z, lift [0-9a-f-]{36} by oncall, position 5:/m)
    expect((await rids()).toSorted()).toEqual(['p3', 'v1'])
  })

  test('ends with 1 when there is no pause on the subject', async () => {
    const { code, stdout, stderr } = await signed('resume', 'task:T-none')
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toBe('No pause on task:T-none is in force: nothing was lifted\n')
  })

  test('ends with 64 when the subject means nothing', async () => {
    const { code, stderr } = await signed('resume', 'T-1')
    expect(code).toBe(64)
    expect(stderr).toContain('Expected a subject such as task:T-1')
  })
})

describe('chaperone lift', () => {
  test('ends the records that it names, whatever they are, and --json is one object', async () => {
    await record('revoke', 'task:T-2', 'v2')
    await record('quarantine', 'task:T-2', 'q2')
    await record('revoke', 'task:T-2', 'v3')
    const { code, stdout } = await signed('lift', 'v2', 'q2', '--json')
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      lifts: ['q2', 'v2'],
      by: operatorName,
      durable: { replicas: 0, connected: 0 },
    })
    expect(await rids()).toContain('v3')
    expect(await rids()).not.toEqual(expect.arrayContaining(['v2']))
    expect(await rids()).not.toEqual(expect.arrayContaining(['q2']))
  })

  test('ends with 4 when fewer replicas than --durable have it, and lifts all the same', async () => {
    await record('revoke', 'task:T-durable', 'v-durable')
    const { code, stdout } = await signed('lift', 'v-durable', '--durable', '1')
    expect(code).toBe(4)
    expect(stdout).toMatch(/^durable {3}on 1 server, no replica, fewer than --durable 1$/m)
    expect(await rids()).not.toContain('v-durable')
  })

  test('finds a record that is older than all that the log has, as "resume" and "revocations" do', async () => {
    await record('revoke', 'task:T-old', 'v-old')
    await record('pause', 'task:T-old', 'p-old')
    const { log, records } = redisKeys({
      redis: { prefix: 'chaperone' },
      trustDomain: names.trustDomain,
    })
    await world.redis.cli('XTRIM', log, 'MAXLEN', '0')
    expect(await rids()).toEqual(expect.arrayContaining(['v-old', 'p-old']))
    expect(await signed('lift', 'v-old')).toMatchObject({ code: 0 })
    await world.redis.cli('HSET', records, 'unreadable', '{}')
    const resumed = await signed('resume', 'task:T-old')
    await world.redis.cli('HDEL', records, 'unreadable')
    expect(resumed).toMatchObject({
      code: 0,
      stderr: '1 records in Redis cannot be read and may be in force: they are left out here\n',
    })
    expect(await rids()).not.toEqual(expect.arrayContaining(['v-old']))
    expect(await rids()).not.toEqual(expect.arrayContaining(['p-old']))
  })

  test('lifts nothing when one of the records is not in force', async () => {
    await record('revoke', 'task:T-3', 'v4')
    const { code, stderr } = await signed('lift', 'v4', 'v5')
    expect(code).toBe(1)
    expect(stderr).toBe('No record v5 is in force: nothing was lifted\n')
    expect(await rids()).toContain('v4')
  })

  test('records no lift that no sidecar would accept', async () => {
    await record('revoke', 'task:T-4', 'v6')
    const { code, stderr } = await world.cli('lift', 'v6', ...why, '--key', strangerPath)
    expect(code).toBe(2)
    expect(stderr).toContain('No sidecar of this configuration would accept the lift')
    expect(stderr).toContain('its key is not one of this operator')
    expect(await rids()).toContain('v6')
  })

  test('works by address with --operator, and asks for it when it is missing', async () => {
    await record('revoke', 'task:T-5', 'v7')
    const store = ['--redis', world.redis.url, '--trust-domain', names.trustDomain]
    const lift = ['lift', 'v7', ...why, '--key', keyPath, ...store]
    const refused = await runCli(lift)
    expect(refused.code).toBe(2)
    expect(refused.stderr).toContain('Expected --operator')
    expect(await runCli([...lift, '--operator', operatorName])).toMatchObject({ code: 0 })
    expect(await rids()).not.toContain('v7')
  })

  test.each([
    ['no key', ['lift', 'v1', '-r', 'x'], "required option '-k, --key <path>'"],
    ['no reason', ['resume', 'task:T-1', '-k', 'k'], "required option '-r, --reason <text>'"],
  ])('ends with 64 when there is %s', async (_case, args, message) => {
    const { code, stderr } = await world.cli(...args)
    expect(code).toBe(64)
    expect(stderr).toContain(message)
  })

  test('never repeats the private key', async () => {
    const { stdout, stderr } = await signed('lift', 'none')
    expect(stdout + stderr).not.toContain(key.privateJwk.d)
  })
})
