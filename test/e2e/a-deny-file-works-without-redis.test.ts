import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openFlow } from '../kit/live-flows.ts'
import { runCli, startWorld, type World } from '../kit/world.ts'

const poll = { timeout: 30_000, interval: 25 }
let world: World
let file: string
beforeAll(async () => {
  world = await startWorld({
    // Long bounds: what refuses and cuts here is the file alone.
    revocation:
      'denyFile: deny.txt, staleAfterWrites: 30s, staleAfterReads: 1m, staleAfterStreams: 5m',
    files: { 'deny.txt': 'task:T-0 from the start\ntsak:T-9 typo\n' },
  })
  file = join(world.sidecar.directory, 'deny.txt')
})
afterAll(() => world[Symbol.asyncDispose]())

async function codeOf(txn: string): Promise<string> {
  const answer = await fetch(`${world.sidecar.agentUrl}/api/things`, {
    headers: world.headers(txn),
  })
  if (answer.status === 200) return 'allowed'
  const body = (await answer.json()) as { readonly code: string }
  return body.code
}

async function scraped(path: string): Promise<string> {
  return (await fetch(`${world.sidecar.adminUrl}${path}`)).text()
}

test('a line of the deny file refuses and cuts while Redis is down, and nothing else', async () => {
  for (const txn of ['T-0', 'T-1', 'T-2']) await world.approve(txn)
  expect(await codeOf('T-0')).toBe('task-terminated')
  const [denied, other] = (['T-1', 'T-2'] as const).map((txn) =>
    openFlow(world, { kind: 'sse', txn }),
  )
  await Promise.all([denied?.live, other?.live])
  let othersEnd: unknown
  void other?.ended.then((end) => (othersEnd = end))
  await world.redis.kill()

  const why = ['-r', 'wrong customer', '--by', 'ops']
  const first = await runCli(['revoke', 'task', 'T-1', ...why, '--file', file])
  expect(first).toMatchObject({ code: 0 })
  expect(first.stdout).toContain(`written   task:T-1, ${file} line 4\n`)
  expect(first.stderr).toContain(`${file}:2:1 Expected a subject`)

  expect(await denied?.ended).toEqual({ how: 'reset' })
  expect(await codeOf('T-1')).toBe('task-terminated')
  expect(await codeOf('T-2')).toBe('allowed')
  expect(othersEnd).toBeUndefined()
  expect(await world.sidecar.recorded(({ subject }) => subject === 'task:T-1')).toMatchObject({
    type: 'revocation',
    rid: expect.stringMatching(/^file-/),
    reason: 'wrong customer',
    by: 'file',
    exchanges_cut: 1,
  })
  expect(await scraped('/metrics')).toContain('\nchaperone_deny_file_subjects 2\n')
  expect(await scraped('/metrics')).toContain('\nchaperone_deny_file_problems 1\n')
  expect(await scraped('/readyz?verbose')).toContain('[+] deny-file: 2 denied, 1 problems')
  expect(world.sidecar.output()).toContain(`${file}:2:1 Expected a subject such as task:T-1`)

  await writeFile(file, '# lifted\n')
  await expect.poll(() => codeOf('T-1'), poll).toBe('allowed')
})

test('revoke --file writes a line once, and what it cannot say is a mistake', async () => {
  const path = join(world.sidecar.directory, 'more.txt')
  const deny = (...args: readonly string[]) => runCli(['revoke', ...args, '--file', path])
  await writeFile(path, 'task:T-1 no newline')
  expect(JSON.parse((await deny('task:T-2', '-r', 'x', '--json')).stdout)).toEqual({
    subject: 'task:T-2',
    file: path,
    line: 3,
    added: true,
  })
  const again = await deny('task:T-2', '-r', 'y')
  expect(again.stdout).toContain(`is there  task:T-2, ${path} line 3\n`)
  expect(await readFile(path, 'utf8')).toMatch(/^task:T-1 no newline\n# \S+Z by \S+\ntask:T-2 x\n$/)
  for (const args of [
    ['--expires', '1h'],
    ['--rid', 'r-1'],
    ['--dry-run'],
    ['--redis', 'redis://127.0.0.1:1'],
  ]) {
    const { code, stderr } = await deny('task:T-3', '-r', 'x', ...args)
    expect([code, stderr]).toEqual([64, expect.stringContaining('cannot be used with')])
  }
  expect(await deny('all', '-r', 'x')).toMatchObject({ code: 64 })
  expect(await deny('tsak:T-3', '-r', 'x')).toMatchObject({ code: 64 })
  await writeFile(path, '#'.repeat(64 * 1024 - 10))
  const full = await deny('task:T-3', '-r', 'x')
  expect([full.code, full.stderr]).toEqual([2, expect.stringContaining('more than 65536 bytes')])
  expect(
    await runCli(['revoke', 'task:T-3', '-r', 'x', '--file', '/proc/none/deny']),
  ).toMatchObject({ code: 2 })
})

test('check reads the deny file', async () => {
  const checked = await world.cli('check')
  expect(checked).toMatchObject({ code: 0 })
  await writeFile(file, 'task:T-0\n\ntsak:T-9\n')
  const { code, stderr } = await world.cli('check')
  expect(code).toBe(1)
  expect(stderr).toContain(`${file}:3:1 Expected a subject such as task:T-1`)
})
