import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { names } from '../kit/tokens.ts'
import { runCli, startWorld, type CliResult, type World } from '../kit/world.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
})
afterAll(() => world[Symbol.asyncDispose]())

/** With nothing but an address, as at 3 am. */
function byAddress(...args: readonly string[]): Promise<CliResult> {
  const store = ['--redis', world.redis.url, '--trust-domain', names.trustDomain]
  return runCli([...args, ...store])
}

/** The records in force, by subject. */
async function inForce(): Promise<ReadonlyMap<string, Readonly<Record<string, unknown>>>> {
  const { stdout } = await world.cli('revocations', '--json')
  const records = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line): Readonly<Record<string, unknown>> => JSON.parse(line))
  return new Map(records.map((record) => [String(record['subject']), record]))
}

function call(txn: string): Promise<Response> {
  return fetch(`${world.sidecar.agentUrl}/api/things`, { headers: world.headers(txn) })
}

const poll = { timeout: 30_000, interval: 25 }

describe('chaperone revoke', () => {
  test('records the subject with its reason, and a sidecar enforces it', async () => {
    await world.approve('T-1')
    expect((await call('T-1')).status).toBe(200)
    const why = ['--reason', 'wrong invoice', '--by', 'ops']
    const { code, stdout, stderr } = await world.cli('revoke', 'task', 'T-1', ...why)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^recorded {2}revoke task:T-1 at \d{4}-.*Z, record [0-9a-f-]{36}, /)
    expect((await inForce()).get('task:T-1')).toMatchObject({
      op: 'revoke',
      reason: 'wrong invoice',
      by: 'ops',
      expiresAtMs: 0,
    })
    await expect.poll(async () => (await call('T-1')).status, poll).toBe(403)
    expect(await (await call('T-1')).json()).toMatchObject({ code: 'task-terminated' })
  })

  test('works by address without a configuration, and revocations lists it', async () => {
    const done = await byAddress('revoke', 'task:T-2', '-r', 'drill', '--by', 'ops', '--rid', 'r-2')
    expect(done).toMatchObject({ code: 0, stderr: '' })
    const { code, stdout } = await byAddress('revocations')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^\d{4}-\S+Z {2}revoke {6}task:T-2 {2}"drill" by ops {2}r-2$/m)
  })

  test('records once when it is repeated with its rid, and --json is one object', async () => {
    const again = (): Promise<CliResult> =>
      byAddress('revoke', 'task:T-3', '-r', 'drill', '--rid', 'r-3', '--json')
    const first: Readonly<Record<string, unknown>> = JSON.parse((await again()).stdout)
    expect(first).toMatchObject({ rid: 'r-3', op: 'revoke', subject: 'task:T-3', everywhere: true })
    const { epoch, recorded_at: at } = first
    expect(JSON.parse((await again()).stdout)).toMatchObject({ rid: 'r-3', epoch, recorded_at: at })
    const other = await byAddress('revoke', 'task:T-other', '-r', 'drill', '--rid', 'r-3')
    expect(other.code).toBe(2)
    expect(other.stderr).toContain('Another revocation has this rid already')
  })

  test('says that one server alone has it, and ends with 4 when --durable wants more', async () => {
    const done = await byAddress('revoke', 'task:T-7', '-r', 'drill')
    expect(done.code).toBe(0)
    expect(done.stdout).toMatch(/^durable {3}on 1 server, no replica$/m)
    const short = await byAddress('revoke', 'task:T-8', '-r', 'drill', '--durable', '1')
    expect(short.code).toBe(4)
    expect(short.stdout).toMatch(
      /^durable {3}on 1 server, no replica, fewer than --durable 1\nenforced {2}1\/1 sidecars/m,
    )
    const json = await byAddress('revoke', 'task:T-8', '-r', 'drill', '--wait', '0', '--json')
    expect(JSON.parse(json.stdout)).toMatchObject({ durable: { replicas: 0, connected: 0 } })
  })

  test('pause with --expires ends by itself, and quarantine isolates an agent', async () => {
    const fromMs = Date.now()
    await byAddress('pause', 'task:T-4', '-r', 'look', '--expires', '1h')
    await byAddress('quarantine', 'agent:spiffe://example.org/agent/z', '-r', 'odd')
    const records = await inForce()
    expect(records.get('task:T-4')).toMatchObject({ op: 'pause' })
    const expiresAtMs = Number(records.get('task:T-4')?.['expiresAtMs'])
    expect(expiresAtMs).toBeGreaterThanOrEqual(fromMs + 3_600_000)
    expect(expiresAtMs).toBeLessThanOrEqual(Date.now() + 3_600_000)
    expect(records.get('agent:spiffe://example.org/agent/z')).toMatchObject({ op: 'quarantine' })
  })

  test.each([
    ['no reason', ['revoke', 'task:T-9'], "required option '-r, --reason <text>'"],
    ['an empty reason', ['revoke', 'task:T-9', '-r', ' '], 'Expected 1 to 512 characters'],
    ['a reason of two lines', ['revoke', 'task:T-9', '-r', 'a\nb'], 'without control characters'],
    ['no such kind', ['revoke', 'tsak:T-9', '-r', 'x'], 'Expected a subject such as task:T-1'],
    ['a bad count', ['pause', 'task:T-9', '-r', 'x', '--durable', '1000'], 'from 0 to 100'],
    ['a bad duration', ['pause', 'task:T-9', '-r', 'x', '--expires', '8'], 'Expected a duration'],
  ])('ends with 64 and records nothing when there is %s', async (_case, args, message) => {
    const { code, stderr } = await byAddress(...args)
    expect(code).toBe(64)
    expect(stderr).toContain(message)
    expect((await inForce()).has('task:T-9')).toBe(false)
  })

  test.each([
    'trust-domain:other.example',
    'upstream:other',
    'approver:https://other.example',
    'agent-prefix:spiffe://other.example/x',
  ])('%s is wide: it needs --yes', async (subject) => {
    const refused = await byAddress('revoke', subject, '-r', 'drill')
    expect(refused.code).toBe(64)
    expect(refused.stderr).toContain('Add --yes')
    expect((await inForce()).has(subject)).toBe(false)
    expect(await byAddress('revoke', subject, '-r', 'drill', '--yes')).toMatchObject({ code: 0 })
    expect((await inForce()).has(subject)).toBe(true)
  })

  test.each([
    ['--redis stands alone', ['--redis', 'redis://127.0.0.1:1'], '--redis needs --trust-domain'],
    ['the trust domain stands alone', ['--trust-domain', 'a'], '--trust-domain needs --redis'],
    [
      'a file says TLS and the URL does not',
      ['--redis', 'redis://127.0.0.1:1', '--trust-domain', 'a', '--ca-file', 'ca.pem'],
      '--redis: Expected rediss instead of redis',
    ],
    [
      'a certificate has no key',
      ['--redis', 'rediss://127.0.0.1:1', '--trust-domain', 'a', '--cert-file', 'c.pem'],
      '--cert-file: Expected keyFile as well',
    ],
    [
      'no sidecar can have the trust domain',
      ['--redis', 'redis://127.0.0.1:1', '--trust-domain', 'A b'],
      '--trust-domain: Expected a SPIFFE trust domain',
    ],
  ])('ends with 64 when %s', async (_case, store, message) => {
    const { code, stderr } = await runCli(['revoke', 'task:T-9', '-r', 'x', ...store])
    expect(code).toBe(64)
    expect(stderr).toContain(message)
  })

  test('never repeats a password that stands in --redis', async () => {
    const url = 'redis://ops:hunter2@127.0.0.1:1'
    const store = ['--redis', url, '--trust-domain', names.trustDomain]
    const { code, stdout, stderr } = await runCli(['revoke', 'task:T-9', '-r', 'x', ...store])
    expect(code).toBe(64)
    expect(stderr).toContain('without user or password: use username and passwordFile')
    expect(stdout + stderr).not.toContain('hunter2')
  })

  test('ends with 2 and says how to repeat it when Redis does not answer', async () => {
    const store = ['--redis', 'redis://127.0.0.1:1', '--trust-domain', names.trustDomain]
    const [revoked, listed] = await Promise.all([
      runCli(['revoke', 'task:T-9', '-r', 'x', '--rid', 'r-9', ...store]),
      runCli(['revocations', ...store]),
    ])
    const { code, stdout, stderr } = revoked
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toBe(
      'chaperone: redis://127.0.0.1:1: Redis did not answer within 5000 ms: connect ECONNREFUSED 127.0.0.1:1\n' +
        'Nothing is confirmed. Repeat it with --rid r-9: it is recorded once.\n',
    )
    expect(listed.code).toBe(2)
    expect(listed.stderr).toContain('redis://127.0.0.1:1: Redis did not answer')
  })

  test('a record of others cannot forge a line of the list', async () => {
    const forged = `drill\u001b[2J\nforged`
    const config = join(world.sidecar.directory, 'chaperone.yaml')
    const { createRedisCommitter } = await import('../../revocation/redis-committer.ts')
    const { systemClock } = await import('../../proxy/system-clock.ts')
    await using committer = createRedisCommitter({
      redis: { url: world.redis.url, prefix: 'chaperone' },
      trustDomain: names.trustDomain,
      clock: systemClock,
    })
    const draft = { op: 'revoke', subject: 'task:T-10', by: 'ops', expiresAtMs: 0 } as const
    await committer.commit({ ...draft, rid: 'r-10', reason: forged })
    const { stdout } = await runCli(['revocations', '-c', config])
    expect(stdout).toContain('task:T-10  "drill?[2J?forged" by ops  r-10\n')
  })
})
