import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { bundleDocument, jwksDocument, signingKey } from '../kit/tokens.ts'

const config = `
version: 1
trustDomain: example.org
identity:
  trustBundles:
    - { trustDomain: example.org, file: bundle.json }
approvers:
  - { iss: 'https://approver.example.org', jwks: approver.jwks.json }
policy: { directory: policies }
revocation: { source: embedded }
upstreams:
  - name: api
    url: https://api.example.org
    credential:
      inject: { header: authorization, secret: { file: token } }
  - name: minted
    url: https://mcp.example.org
    credential: { mint: { audience: 'https://mcp.example.org' } }
routes:
  - { prefix: /api, upstream: api }
mint:
  issuer: https://chaperone.example.org
  keys: { file: mint.jwks.json }
`
const policy = `@id("test/all")
@reason("The test allows it.")
permit (principal is Chaperone::Agent, action, resource is Chaperone::Upstream);
`

let directory = ''

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'chaperone-'))
  mkdirSync(join(directory, 'policies'))
  const key = await signingKey()
  put('chaperone.yaml', config)
  put('policies/a.cedar', policy)
  put('bundle.json', bundleDocument([key]))
  put('approver.jwks.json', jwksDocument([key]))
  put('token', 'ghp_s3cr3t\n')
  put('mint.jwks.json', JSON.stringify({ keys: [key.privateJwk] }))
})

afterEach(() => {
  rmSync(directory, { recursive: true })
})

/** As a mounted secret: for its owner only. */
function put(name: string, text: string): void {
  writeFileSync(join(directory, name), text, { mode: 0o600 })
}

const script = `
import { Command } from 'commander'
import { registerCheck } from ${JSON.stringify(new URL('../../cli/check.ts', import.meta.url).href)}
const program = new Command()
registerCheck(program)
await program.parseAsync()
`

function check(...args: readonly string[]) {
  const path = join(directory, 'chaperone.yaml')
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', script, '--', 'check', '-c', path, ...args],
    { encoding: 'utf8', cwd: new URL('../..', import.meta.url) },
  )
  const lines = stderr
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.replace(`${directory}/`, ''))
  return { status, stdout: stdout.replace(`${directory}/`, ''), lines }
}

describe('registerCheck()', () => {
  test('check ends with 0 and says nothing on stderr when all is good', () => {
    expect(check()).toEqual({
      status: 0,
      stdout: 'chaperone.yaml: good, 0 problems, 0 warnings\n',
      lines: [],
    })
  })

  test('check ends with 3 and gives every place when the configuration is not valid', () => {
    put('chaperone.yaml', config.replace('version: 1', 'version: 2').replace('routes:', 'route:'))
    const { status, stdout, lines } = check()
    expect(status).toBe(3)
    expect(stdout).toBe('chaperone.yaml: not valid, 3 problems\n')
    expect(lines).toEqual([
      'chaperone.yaml:2:1 routes: Required',
      'chaperone.yaml:2:10 version: Expected 1',
      'chaperone.yaml:19:1 route: Unknown setting; did you mean "routes"?',
    ])
  })

  test('check ends with 3 when there is no configuration', () => {
    rmSync(join(directory, 'chaperone.yaml'))
    expect(check()).toMatchObject({
      status: 3,
      lines: ['chaperone.yaml:1:1 The file does not exist'],
    })
  })

  test('check ends with 1 when the delegation authority has the key of an approver, or none', async () => {
    const iss = 'https://delegation.example.org'
    put('chaperone.yaml', `${config}delegation: { iss: '${iss}', jwks: delegation.jwks.json }\n`)
    expect(check()).toMatchObject({
      status: 1,
      lines: ['delegation.jwks.json:1:1 The file does not exist'],
    })
    const key = await signingKey()
    for (const name of ['approver.jwks.json', 'delegation.jwks.json'])
      put(name, jwksDocument([key]))
    expect(check()).toMatchObject({
      status: 1,
      lines: [
        `chaperone.yaml:1:1 Delegation authority "${iss}": one of its keys is of the approver "https://approver.example.org"`,
      ],
    })
  })

  test('check ends with 1 and gives all problems of keys, secrets and policies at once', () => {
    put('policies/a.cedar', policy.replace('resource is', 'resource iss'))
    put('bundle.json', '{"keys":[]}')
    put('approver.jwks.json', '{"keys":[{"kty":"EC"}]}')
    put('token', '\n')
    rmSync(join(directory, 'mint.jwks.json'))
    const { status, stdout, lines } = check()
    expect(status).toBe(1)
    expect(stdout).toContain('valid, but what it refers to is not, 5 problems')
    expect(lines).toEqual([
      expect.stringMatching(/^policies\/a\.cedar:3:\d+ /),
      expect.stringMatching(/^approver\.jwks\.json:1:1 keys\[0\]: Expected "kid"/),
      'bundle.json:1:1 Expected at least one usable jwt-svid key',
      'token:1:1 Expected a secret: the file is empty',
      'mint.jwks.json:1:1 The file does not exist',
    ])
  })

  test('check ends with 1 when the policy directory holds no policy', () => {
    rmSync(join(directory, 'policies/a.cedar'))
    expect(check()).toMatchObject({
      status: 1,
      lines: [
        expect.stringMatching(
          /policies: Expected \*\.cedar files\. To refuse everything, put in a policy that forbids everything$/,
        ),
      ],
    })
  })

  test('check ends with 1 when the key of the audit checkpoints is missing', () => {
    const audit = 'audit: { sink: audit.ndjson, checkpoint: { keys: { file: checkpoint.json } } }'
    put('chaperone.yaml', `${config}\n${audit}\n`)
    expect(check()).toMatchObject({
      status: 1,
      lines: ['checkpoint.json:1:1 The file does not exist'],
    })
  })

  test('check ends with 1 when a mint key is public, and does not quote it', async () => {
    const { publicJwk } = await signingKey()
    put('mint.jwks.json', JSON.stringify({ keys: [publicJwk] }))
    const { status, lines } = check()
    expect(status).toBe(1)
    expect(lines).toEqual([expect.stringContaining('keys[0]: Expected a private JWK')])
    expect(lines.join('')).not.toContain(String(publicJwk.x))
  })

  test('check warns of a secret that everybody can read, and ends with 0', () => {
    chmodSync(join(directory, 'token'), 0o644)
    expect(check()).toEqual({
      status: 0,
      stdout: 'chaperone.yaml: good, 0 problems, 1 warning\n',
      lines: ['token:1:1 Every user of this machine can read it (warning)'],
    })
  })

  test('check --json gives the same as data on stdout', () => {
    put('token', '')
    const { status, stdout, lines } = check('--json')
    expect(status).toBe(1)
    expect(lines).toEqual([])
    expect(JSON.parse(stdout)).toEqual({
      ok: false,
      problems: [
        { file: 'token', line: 1, col: 1, message: 'Expected a secret: the file is empty' },
      ],
      warnings: [],
    })
  })
})
