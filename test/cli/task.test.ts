import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { names } from '../kit/tokens.ts'
import { runCli, startWorld, type CliResult, type World } from '../kit/world.ts'

let world: World
let sidecar: SidecarProcess
let folder = ''
let narrowParent: Promise<CliResult> | undefined
beforeAll(async () => {
  world = await startWorld()
  folder = await mkdtemp(join(tmpdir(), 'chaperone-cli-'))
  await runCli(['keygen', join(folder, 'approver')])
  const jwks = await readFile(join(folder, 'approver.jwks.json'), 'utf8')
  sidecar = await world.another({ files: { 'approvers.json': jwks } })
})
afterAll(async () => {
  await sidecar[Symbol.asyncDispose]()
  await world[Symbol.asyncDispose]()
  await rm(folder, { recursive: true })
})

function cli(...args: readonly string[]): Promise<CliResult> {
  return runCli([...args, '-c', join(sidecar.directory, 'chaperone.yaml')])
}

/** `task grant` of everything a grant needs; `more` adds to it, and the last of two options counts. */
function grant(txn: string, more: readonly string[] = []): Promise<CliResult> {
  const fixed = ['-k', join(folder, 'approver.private.json'), '--agent', names.agent]
  const allow = ['--allow', `GET,POST ${world.upstream.url}/things/**`]
  return cli('task', 'grant', ...fixed, '--txn', txn, '--purpose', 'drill', ...allow, ...more)
}

/** `task grant --parent` with nothing but what it needs. */
function child(parent: string, txn: string, more: readonly string[] = []): Promise<CliResult> {
  const fixed = ['-k', join(folder, 'approver.private.json'), '--agent', names.agent]
  const allow = ['--allow', `GET ${world.upstream.url}/things/*`]
  return cli('task', 'grant', ...fixed, '--txn', txn, '--parent', parent, ...allow, ...more)
}

function call(
  headers: Readonly<Record<string, string>>,
  path: string = '/api/things/1',
): Promise<Response> {
  const authorization = `Bearer ${world.svid}`
  return fetch(`${sidecar.agentUrl}${path}`, { headers: { authorization, ...headers } })
}

describe('chaperone task', () => {
  test('grant stores, with a key of keygen, a grant that a sidecar accepts', async () => {
    const { code, stdout, stderr } = await grant('T-1', ['--ttl', '5m', '--text', 'A drill'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^stored: task T-1, grant grant-[0-9a-f-]{36}, until \S+Z\n$/)
    expect((await call({ 'task-id': 'T-1' })).status).toBe(200)
    const outside = await call({ 'task-id': 'T-1' }, '/api/other')
    expect(await outside.json()).toMatchObject({ code: 'policy-denied' })
  })

  test('grant --print prints the grant and stores nothing; --out writes it for its owner', async () => {
    const printed = await grant('T-2', ['--print'])
    expect(printed.code).toBe(0)
    const compact = printed.stdout.trim()
    expect((await call({ 'task-grant': compact })).status).toBe(200)
    expect((await cli('task', 'show', 'T-2')).code).toBe(1)
    const path = join(folder, 'grant.jwt')
    expect(await grant('T-3', ['--out', path])).toMatchObject({ code: 0 })
    const written = (await readFile(path, 'utf8')).trim()
    expect((await call({ 'task-grant': written })).status).toBe(200)
  })

  test('grant takes all three forms of --allow', async () => {
    const { url } = world.upstream
    const mcp = ['--allow', `mcp ${url}/mcp lookup,wait`]
    const ws = ['--allow', `ws ${url.replace('http', 'ws')}/ws`]
    const { code } = await grant('T-4', [...mcp, ...ws])
    expect(code).toBe(0)
    const shown: unknown = JSON.parse((await cli('task', 'show', 'T-4', '--json')).stdout)
    expect(shown).toMatchObject({
      state: 'valid',
      claims: {
        sub: names.agent,
        txn: 'T-4',
        authorization_details: [
          { type: 'http_api', locations: [url], actions: ['GET', 'POST'], paths: ['/things/**'] },
          { type: 'mcp_server', locations: [`${url}/mcp`], tools: ['lookup', 'wait'] },
          { type: 'ws', paths: ['/ws'] },
        ],
      },
    })
  })

  test.each([
    ['a life beyond the approver', ['--ttl', '9h'], /task-grant-invalid: claim exp: too far ahead/],
    [
      'a class beyond the approver',
      ['--sensitivity', 'restricted'],
      /task-grant-invalid: .*sensitiv/i,
    ],
    [
      'another approver',
      ['--iss', 'https://nobody.example'],
      /task-grant-invalid: .*(approver|iss)/i,
    ],
    ['a location that is no origin', ['--allow', 'GET ftp://a.example/x'], /task-grant-invalid: /],
  ])('grant ends with 1, says why and stores nothing for %s', async (_case, more, why) => {
    const { code, stdout, stderr } = await grant('T-refused', more)
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(/^The grant would be refused: /)
    expect(stderr).toMatch(why)
    expect((await cli('task', 'show', 'T-refused')).code).toBe(1)
  })

  test.each([
    ['a wrong --allow', ['--allow', 'https://a.example/x'], 'Expected "GET https://host/path/**"'],
    ['mcp without tools', ['--allow', 'mcp https://a.example/mcp'], 'Expected "GET https://'],
    ['a wrong --ttl', ['--ttl', 'soon'], 'Expected a duration such as 30m'],
    ['an unknown class', ['--sensitivity', 'secret'], 'Allowed choices are public'],
  ])('grant ends with 64 for %s', async (_case, more, message) => {
    const { code, stderr } = await grant('T-usage', more)
    expect(code).toBe(64)
    expect(stderr).toContain(message)
  })

  test.each([
    ['is not there', undefined, 'The file does not exist'],
    ['is not JSON', '{"d":"s3cr3t-bytes', 'not JSON'],
    ['has no kid', '{"kty":"EC","d":"s3cr3t-bytes"}', 'Expected a private JWK with kid and alg'],
    [
      'does not fit its alg',
      '{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"k","alg":"ES256","d":"s3cr3t-bytes"}',
      'Expected a private JWK that fits its alg',
    ],
  ])('grant ends with 2 and quotes no secret when the key %s', async (_case, text, message) => {
    const path = join(folder, 'bad.json')
    await rm(path, { force: true })
    if (text !== undefined) await writeFile(path, text)
    const { code, stdout, stderr } = await grant('T-key', ['-k', path])
    expect({ code, stderr }).toEqual({ code: 2, stderr: `chaperone: ${path}: ${message}\n` })
    expect(stdout + stderr).not.toContain('s3cr3t-bytes')
  })

  test('show says that a grant has expired, and ends with 1', async () => {
    const iat = Math.floor(Date.now() / 1000) - 700
    await world.approve('T-past', { iat, exp: iat + 600 })
    const { code, stdout } = await world.cli('task', 'show', 'T-past')
    expect({ code, shown: JSON.parse(stdout) }).toMatchObject({
      code: 1,
      shown: { state: 'task-expired: a grant of the task has expired' },
    })
  })

  test('show says why a stored grant would be refused, and ends with 1', async () => {
    // Signed by the approver of the other sidecar.
    await world.approve('T-foreign')
    const { code, stdout } = await cli('task', 'show', 'T-foreign')
    expect(code).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({
      state: expect.stringMatching(/^task-grant-invalid: /),
      claims: { txn: 'T-foreign' },
    })
    const absent = await cli('task', 'show', 'T-absent')
    expect(absent).toMatchObject({ code: 1, stderr: 'No grant of task T-absent is stored\n' })
  })

  test('ls lists the newest first, whatever else the store holds', async () => {
    for (const txn of ['T-5', 'T-6']) expect((await grant(txn)).code).toBe(0)
    const key = (await world.redis.cli('--raw', 'keys', '*'))
      .split('\n')
      .find((one) => one.endsWith('T-5'))
    await world.redis.cli('set', key ?? '', 'no grant at all', 'keepttl')
    const { code, stdout } = await cli('task', 'ls', '--limit', '2')
    expect(code).toBe(0)
    expect(stdout.trim().split('\n')).toEqual([
      expect.stringMatching(/^T-6 {2}spiffe:\/\/example\.org\/agent\/a {2}drill {2}until \S+Z$/),
      expect.stringMatching(/^T-5 {2}unreadable grant {2}- {2}until \S+Z$/),
    ])
    const json = await cli('task', 'ls', '-n', '1', '--json')
    expect(JSON.parse(json.stdout)).toMatchObject({
      txn: 'T-6',
      sub: names.agent,
      purpose: 'drill',
    })
    const shown = await cli('task', 'show', 'T-5')
    expect(shown).toMatchObject({ code: 1, stderr: '' })
    expect(await cli('task', 'ls', '-n', '0')).toMatchObject({ code: 64 })
  })

  test('grant --parent signs for a sub-agent what hangs on its task, and ls and show have it below', async () => {
    const planner = 'spiffe://example.org/agent/planner'
    const to = ['--delegate-to', 'spiffe://example.org/agent/*']
    expect((await grant('P-1', ['--agent', planner, ...to, '--max-depth', '2'])).code).toBe(0)
    const { code, stdout, stderr } = await child('P-1', 'C-1')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^stored: task C-1, grant /)
    expect((await call({ 'task-id': 'C-1' })).status).toBe(200)
    const shown: unknown = JSON.parse((await cli('task', 'show', 'P-1')).stdout)
    expect(shown).toMatchObject({ state: 'valid', below: [{ txn: 'C-1', sub: names.agent }] })
    const own: unknown = JSON.parse((await cli('task', 'show', 'C-1')).stdout)
    expect(own).toMatchObject({
      state: 'valid',
      claims: { purpose: 'drill', sensitivity: 'internal', anc: [{ txn: 'P-1', sub: planner }] },
    })
    const { stdout: listed } = await cli('task', 'ls', '--limit', '2')
    expect(listed.split('\n').map((line) => /^ *\S+/.exec(line)?.[0])).toEqual([
      'P-1',
      '  C-1',
      undefined,
    ])
    const { stdout: alone } = await cli('task', 'ls', '--limit', '1')
    expect(alone).toMatch(/^C-1 .* {2}below P-1\n$/)
    const dry = await cli('revoke', 'task:P-1', '-r', 'x', '--dry-run')
    expect(dry.stdout).toContain(`stored    1 tasks below it\n          C-1  ${names.agent}\n`)
    const json: unknown = JSON.parse(
      (await cli('revoke', 'task:P-1', '-r', 'x', '--dry-run', '--json')).stdout,
    )
    expect(json).toMatchObject({ below: ['C-1'] })
  })

  test.each([
    ['paths', ['--allow', 'GET {url}/**'], /authorization_details\[1\]: .* in paths\n$/],
    [
      'a method',
      ['--allow', 'PUT {url}/things/**'],
      /authorization_details\[1\]: .* in actions\n$/,
    ],
    ['time', ['--ttl', '7h'], /claim exp: is after that of the parent\n$/],
    ['data', ['--sensitivity', 'internal'], /claim sensitivity: /],
    ['another purpose', ['--purpose', 'other'], /claim purpose: is not that of the parent\n$/],
    [
      'an agent',
      ['--agent', 'spiffe://example.org/other'],
      /claim sub: its parent does not delegate/,
    ],
    [
      'its own delegates',
      ['--delegate-to', 'spiffe://example.org/**'],
      /claim delegation\.max_depth/,
    ],
  ])('grant --parent says what is wider than the parent: %s', async (_case, more, why) => {
    narrowParent ??= grant('P-2', [
      '--sensitivity=public',
      '--agent=spiffe://example.org/agent/planner',
      '--delegate-to=spiffe://example.org/agent/*',
    ])
    expect(await narrowParent).toMatchObject({ code: 0 })
    const filled = more.map((text) => text.replace('{url}', world.upstream.url))
    const { code, stdout, stderr } = await child('P-2', 'C-refused', filled)
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(/^The grant would be refused: task-grant-invalid: link 2 of 2: /)
    expect(stderr).toMatch(why)
  })

  test('grant --parent needs a parent that is stored and valid', async () => {
    expect(await child('P-absent', 'C-2')).toMatchObject({
      code: 1,
      stderr: 'No grant of the parent P-absent is stored\n',
    })
    await world.approve('P-foreign')
    expect(await child('P-foreign', 'C-2')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^The parent P-foreign would be refused: task-grant-invalid: /),
    })
    expect(
      await cli(
        'task',
        'grant',
        '-k',
        'x',
        '--agent',
        'a',
        '--txn',
        't',
        '--allow',
        'GET https://a.example/x',
      ),
    ).toMatchObject({
      code: 64,
      stderr: 'Expected --purpose, or --parent whose purpose it takes\n',
    })
  })

  test('ends with 2 and names the store when Redis is down', async () => {
    const path = join(sidecar.directory, 'down.yaml')
    const text = await readFile(join(sidecar.directory, 'chaperone.yaml'), 'utf8')
    await writeFile(path, text.replace(world.redis.url, 'redis://127.0.0.1:1'))
    const { code, stdout, stderr } = await runCli(['task', 'ls', '-c', path])
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toBe('chaperone: redis://127.0.0.1:1: The grant store did not answer\n')
  })
})
