import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openFlow } from '../kit/live-flows.ts'
import { names } from '../kit/tokens.ts'
import { runCli, startWorld, type CliResult, type World } from '../kit/world.ts'

const mainPath = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
const sidecarsKey = `{chaperone}:${names.trustDomain}:sidecars`
const poll = { timeout: 30_000, interval: 50 }

let world: World
beforeAll(async () => {
  world = await startWorld()
})
afterAll(() => world[Symbol.asyncDispose]())

function byAddress(...args: readonly string[]): Promise<CliResult> {
  return runCli([...args, '--redis', world.redis.url, '--trust-domain', names.trustDomain])
}

function elsewhere(...args: readonly string[]): Promise<CliResult> {
  return runCli([...args, '--redis', world.redis.url, '--trust-domain', 'nobody.example.org'])
}

describe('chaperone status', () => {
  test('shows the store and the sidecar that follows it, and ends with 0', async () => {
    await byAddress('revoke', 'task:T-1', '-r', 'drill')
    const { code, stdout, stderr } = await byAddress('status')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^store .*: position 1:[0-9a-f]{8}, 1 records, largest lag 0$/m)
    expect(stdout).toContain('sidecars  1/1 up to date and ready')
    expect(stdout).toMatch(/^[0-9a-f]{8} .* ok +1:[0-9a-f]{8} +\d+ ms +0 +0 +[0-9a-f]{12}$/m)
  })

  test('--json says the same for programs', async () => {
    const start = (await world.sidecar.recorded(({ type }) => type === 'start')) as {
      readonly sidecar: { readonly instance: string }
    }
    const { code, stdout } = await byAddress('status', '--json')
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      trust_domain: names.trustDomain,
      up_to_date: true,
      sidecars: [
        { instance: start.sidecar.instance, state: 'ok', lag: 0, ready: true, exchanges: 0 },
      ],
    })
  })

  test('a store that no sidecar follows is up to date, but a revocation there is not confirmed', async () => {
    const status = await elsewhere('status')
    expect(status.code).toBe(0)
    expect(status.stdout).toContain('sidecars  0/0')
    const revoked = await elsewhere('revoke', 'task:T-1', '-r', 'drill')
    expect(revoked.code).toBe(4)
    expect(revoked.stdout).toContain('enforced  by nobody: no sidecar is registered in this store')
    const unawaited = await elsewhere('revoke', 'task:T-1', '-r', 'drill', '--wait', '0')
    expect(unawaited.code).toBe(0)
    expect(unawaited.stdout).toContain('one that cannot hear fails closed by itself')
  })

  test('--watch looks again until it is stopped', async () => {
    const args = ['status', '--watch', '--json', '--redis', world.redis.url]
    const child = spawn(process.execPath, [mainPath, ...args, '--trust-domain', names.trustDomain])
    let lines = 0
    child.stdout.on('data', () => (lines += 1))
    await expect.poll(() => lines, poll).toBeGreaterThan(1)
    child.kill('SIGINT')
    expect(await once(child, 'exit')).toEqual([0, null])
  })

  test('a row of others cannot forge a line, and is named as unreadable', async () => {
    await world.redis.cli('HSET', sidecarsKey, 'forged\u001b[2J', 'not a row')
    // In an hour, so that it is not silent however long the command takes to look.
    const seen = String(Date.now() + 3_600_000)
    await world.redis.cli('ZADD', `${sidecarsKey}-seen`, seen, 'forged\u001b[2J')
    const { code, stdout } = await byAddress('status')
    await world.redis.cli('ZREM', `${sidecarsKey}-seen`, 'forged\u001b[2J')
    expect(code).toBe(4)
    expect(stdout).toContain('forged?[2J is unreadable')
  })
})

describe('chaperone top', () => {
  test('prints once without a terminal: sidecars, tasks in flight, and who has the last records', async () => {
    await world.approve('T-top')
    const flow = openFlow(world, { kind: 'sse', txn: 'T-top' })
    await flow.live
    const pause = ['pause', 'task:T-other', '-r', 'look', '--by', 'ops', '--rid', 'r-top']
    await byAddress(...pause)
    const seen = async () => JSON.parse((await byAddress('top', '--json')).stdout)
    await expect.poll(seen, poll).toMatchObject({
      trust_domain: names.trustDomain,
      exchanges: 1,
      up_to_date: true,
      sidecars: [{ state: 'ok', exchanges: 1 }],
      tasks: [{ txn: 'T-top', depth: 0, exchanges: 1, sidecars: 1 }],
      revocations: [{ rid: 'r-top', op: 'pause', subject: 'task:T-other', enforced: 1 }, {}],
    })
    const { code, stdout, stderr } = await byAddress('top')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toContain('sidecars  1/1 up to date and ready, 1 exchanges in flight\n')
    expect(stdout).toContain('\ntasks     1 in flight\n  T-top  1 in flight on 1 sidecars\n')
    expect(stdout).toMatch(
      /^ {2}\S+Z {2}pause +task:T-other {2}enforced 1\/1 {2}"look" by ops {2}r-top$/m,
    )
    expect(stdout).not.toContain('\u001b')
    await byAddress('revoke', 'task:T-top', '-r', 'drill')
    await flow.ended
  })

  test('what others wrote cannot forge a line or move the cursor', async () => {
    const live = '{"x\\u001b[2J\\nforged":3}'
    await world.redis.cli('HSET', `${sidecarsKey}-live`, 'odd', live)
    await world.redis.cli('ZADD', `${sidecarsKey}-seen`, String(Date.now()), 'odd')
    const { stdout } = await byAddress('top', '--once')
    expect(stdout).toContain('\n  x?[2J?forged  3 in flight on 1 sidecars\n')
    expect(stdout).not.toContain('\u001b')
    expect(stdout).not.toMatch(/^forged/m)
    await world.redis.cli('ZREM', `${sidecarsKey}-seen`, 'odd')
  })

  test('ends with 2 when the store does not answer', async () => {
    const args = ['top', '--redis', 'redis://127.0.0.1:1', '--trust-domain', names.trustDomain]
    expect(await runCli(args)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('redis://127.0.0.1:1: Redis did not answer'),
    })
  })
})

describe('chaperone revoke --dry-run', () => {
  test('says what a record would cut, and records nothing', async () => {
    await world.approve('T-2')
    const flow = openFlow(world, { kind: 'sse', txn: 'T-2' })
    await flow.live
    const dry = (subject: string): Promise<CliResult> =>
      byAddress('revoke', subject, '-r', 'drill', '--dry-run', '--json')
    await expect
      .poll(async () => JSON.parse((await dry('task:T-2')).stdout), poll)
      .toMatchObject({
        kind: 'task',
        wide: false,
        sidecars: 1,
        silent: 0,
        exchanges: 1,
        covered: 1,
        tasks: [{ txn: 'T-2', depth: 0, exchanges: 1, sidecars: 1 }],
      })
    const tree = await byAddress('revoke', 'all', '-r', 'drill', '--dry-run')
    expect(tree.stdout).toContain('tasks     1 in flight\n  T-2  1 in flight on 1 sidecars\n')
    expect(JSON.parse((await dry('task:T-3')).stdout)).toMatchObject({ exchanges: 1, covered: 0 })
    const upstream = await byAddress('revoke', 'upstream:api', '-r', 'drill', '--dry-run')
    expect(upstream.code).toBe(0)
    expect(upstream.stdout).toContain('upstream:api (upstream, wide: it needs --yes')
    expect(upstream.stdout).toContain('live      at most 1: sidecars count by task only')
    const { stdout } = await byAddress('revocations')
    expect(stdout).not.toMatch(/T-2|T-3|upstream/)
    await byAddress('revoke', 'task:T-2', '-r', 'drill')
    expect(await flow.ended).toEqual({ how: 'reset' })
  })
})

describe('chaperone tail', () => {
  test('prints each record as it is committed, and none from before', async () => {
    const args = ['tail', '--redis', world.redis.url, '--trust-domain', names.trustDomain]
    const child = spawn(process.execPath, [mainPath, ...args])
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    await expect.poll(() => stderr, poll).toContain('Following redis://')
    await byAddress('pause', 'task:T-9', '-r', 'look', '--by', 'ops', '--rid', 'r-9')
    await expect.poll(() => stdout, poll).toContain('\n')
    expect(stdout).toMatch(/^\S+Z {2}pause {7}task:T-9 {2}"look" by ops {2}r-9 {2}position \d+\n$/)
    child.kill('SIGINT')
    expect(await once(child, 'exit')).toEqual([0, null])
  })
})
