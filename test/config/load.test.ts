import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { formatProblem, loadConfig, parseConfig } from '../../config/load.ts'

const example = readFileSync(new URL('../../examples/chaperone.yaml', import.meta.url), 'utf8')

/** The example with one edit, which must hit. */
function edited(from: string, to: string): string {
  expect(example).toContain(from)
  return example.replace(from, () => to)
}

function problemsOf(text: string): readonly string[] {
  const result = parseConfig(text, 'chaperone.yaml')
  return result.ok ? [] : result.problems.map(formatProblem)
}

function messagesOf(path: string): readonly string[] {
  const result = loadConfig(path)
  return result.ok ? [] : result.problems.map(({ message }) => message)
}

function position(text: string, needle: string): string {
  const before = text.slice(0, text.indexOf(needle)).split('\n')
  return `chaperone.yaml:${before.length}:${(before.at(-1) ?? '').length + 1}`
}

describe('parseConfig()', () => {
  test('parseConfig() fills in defaults and makes paths absolute when the example is read', () => {
    const result = parseConfig(example, '/etc/chaperone/chaperone.yaml')
    if (!result.ok) throw new Error(result.problems.map(formatProblem).join('\n'))
    const { config, sha256 } = result
    expect(sha256).toMatch(/^[0-9a-f]{64}$/)
    expect(config.identity.maxSvidTtl).toBe(3_600_000)
    expect(config.limits.maxMcpBytes).toBe(262_144)
    expect(config.limits.maxConnections).toBe(1024)
    expect(config.approvers[0]?.jwks).toBe(
      '/etc/chaperone/approvers/approvals.example.org.jwks.json',
    )
    expect(config.policy.directory).toBe('/etc/chaperone/policies')
    expect(config.upstreams[0]?.credential).toEqual({
      inject: {
        header: 'authorization',
        template: 'Bearer {secret}',
        secret: { file: '/run/secrets/chaperone/github-token' },
      },
    })
  })

  test('parseConfig() makes every relative path absolute but leaves stdout', () => {
    const text = example
      .replaceAll('/run/secrets/chaperone/', 'secrets/')
      .replaceAll('/run/spire/', '')
    const result = parseConfig(
      text
        .replace('/var/log/chaperone/audit.jsonl', 'stdout')
        .replace('  # file: /run', '  file: run'),
      '/etc/c.yaml',
    )
    if (!result.ok) throw new Error(result.problems.map(formatProblem).join('\n'))
    const { config } = result
    expect(JSON.stringify(config)).not.toMatch(/"(secrets|bundles|run|approvers|policies)\//)
    expect(config.mint?.keys.file).toBe('/etc/secrets/mint-keys.json')
    expect(config.revocation).toMatchObject({
      redis: { passwordFile: '/etc/secrets/redis-password', caFile: '/etc/secrets/redis-ca.pem' },
    })
    expect(config.grants.file).toBe('/etc/run/chaperone/grant.jwt')
    expect(config.audit.sink).toBe('stdout')
  })

  test('parseConfig() places a wrong value at the value', () => {
    const text = edited('kind: rest', 'kind: soap')
    expect(problemsOf(text)).toEqual([
      `${position(text, 'soap')} upstreams[0].kind: Expected rest or mcp`,
    ])
  })

  test('parseConfig() places an unknown key at the key and suggests the one that was meant', () => {
    const text = edited('clockSkew: 5s', 'clock_skew: 5s\n  zzzzzz: 1')
    expect(problemsOf(text)).toEqual([
      `${position(text, 'clock_skew')} identity.clock_skew: Unknown setting; did you mean "clockSkew"?`,
      `${position(text, 'zzzzzz')} identity.zzzzzz: Unknown setting`,
    ])
  })

  test('parseConfig() reports all problems at once in the order of the file', () => {
    const text = edited('maxTtl: 30m', 'maxTtl: 30 minutes')
      .replace('level: info', 'level: loud')
      .replace('drain: 20s', 'drain: 20h')
      .replace('maxExchanges: 4096', 'maxExchanges: 0')
    expect(problemsOf(text).map((line) => line.replace(/^\S+ /, ''))).toEqual([
      'approvers[1].maxTtl: Expected a duration such as "250ms", "30s" or "5m"',
      'limits.maxExchanges: Expected at least 1',
      'shutdown.drain: Expected a duration from 0 ms to 600000 ms',
      'log.level: Expected "debug" or "info" or "warn" or "error"',
    ])
  })

  test('parseConfig() refuses a literal secret at its place and does not repeat it', () => {
    const text = edited(
      'secret: { file: /run/secrets/chaperone/github-token }',
      'secret: ghp_s3cr3t',
    )
    const problems = problemsOf(text)
    expect(problems).toEqual([
      `${position(text, 'ghp_s3cr3t')} upstreams[0].credential.inject.secret: ` +
        'Expected { file: <path> }: a secret may not stand in the configuration',
    ])
    expect(JSON.stringify(parseConfig(text, 'f'))).not.toContain('s3cr3t')
  })

  test('parseConfig() never quotes a value when any scalar is replaced by a secret', () => {
    const scalars = [...example.matchAll(/^ *(?:- )?\w+: (?!\{|\[)(\S.*)$/gm)]
    expect(scalars.length).toBeGreaterThan(40)
    for (const { 0: line, 1: value = '' } of scalars) {
      const text = example.replace(line, () => line.replace(value, () => '"s3cr3t {[ value"'))
      expect(problemsOf(text).join('\n')).not.toContain('s3cr3t')
    }
  })

  test('parseConfig() reports what is missing in the alternative whose key is there', () => {
    const text = edited('audience: https://tickets.internal.example.org\n', 'audienc: x\n')
    expect(problemsOf(text).map((line) => line.replace(/^\S+ /, ''))).toEqual([
      'upstreams[1].credential.mint.audience: Required',
      'upstreams[1].credential.mint.audienc: Unknown setting; did you mean "audience"?',
    ])
  })

  test('parseConfig() names the alternatives when no key tells which was meant', () => {
    const both = edited('- prefix: /github', '- prefix: /github\n    host: github.localhost')
    expect(problemsOf(both)).toEqual([
      `${position(both, 'prefix: /github')} routes[0]: Expected { prefix, upstream } or { host, upstream }`,
    ])
    const slip = edited('- prefix: /github', '- prefx: /github')
    expect(problemsOf(slip)).toEqual([
      `${position(slip, 'prefx')} routes[0].prefx: Unknown setting; did you mean "prefix"?`,
    ])
  })

  test.each([
    ['a: &x 1\nb: *x', 'chaperone.yaml:1:7 Anchors are not allowed'],
    ['a: 1\nb: *x', 'chaperone.yaml:2:4 Aliases are not allowed'],
    ['a: !!binary aGk=', 'chaperone.yaml:1:13 Tags are not allowed'],
    ['a: 1\na: 2', 'chaperone.yaml:2:1 The key stands twice'],
    ['a: 1\n---\nb: 2', 'chaperone.yaml:2:1 Expected one document'],
    ['constructor: 1', 'chaperone.yaml:1:1 Expected another key'],
    ['__proto__: {}', 'chaperone.yaml:1:1 Expected another key'],
    ['1: a', 'chaperone.yaml:1:1 Expected another key'],
    ['\ta: 1', 'chaperone.yaml:1:1 Expected spaces, not tabs, as indentation'],
    ['- 1', 'chaperone.yaml:1:1 Expected a mapping'],
    ['', 'chaperone.yaml:1:1 Expected a mapping'],
  ])('parseConfig() refuses %j as no plain document', (text, problem) => {
    expect(problemsOf(text)).toContain(problem)
  })

  test('parseConfig() takes a merge key for an unknown setting', () => {
    expect(problemsOf(edited('log:\n', 'log:\n  <<: { level: debug }\n'))).toEqual([
      expect.stringContaining('log["<<"]: Unknown setting'),
    ])
  })

  test(
    'parseConfig() refuses deep nesting without exhausting the stack',
    { timeout: 120_000 },
    () => {
      expect(problemsOf('['.repeat(500_000))[0]).toMatch(
        /Expected (less nesting|YAML of sensible depth)$/,
      )
      expect(problemsOf('a: '.concat('{a: '.repeat(20_000)))).not.toEqual([])
    },
  )

  test.each([
    [
      '- name: tickets',
      '- name: github',
      'upstreams[1].name: The name is taken by another upstream',
    ],
    [
      'upstream: tickets',
      'upstream: tickts',
      'routes[1].upstream: Expected the name of an upstream; did you mean "tickets"?',
    ],
    [
      '  - host: tickets.localhost:15080',
      '  - prefix: /github',
      'routes[1].prefix: Another route has this prefix',
    ],
    ['prefix: /github', 'prefix: /a/..', 'routes[0].prefix: Expected no "." or ".." in the path'],
    [
      'agent: 127.0.0.1:15080',
      'agent: 0.0.0.0:15080',
      'listen.agent: Expected a loopback address, or unsafeNonLoopback: true',
    ],
    [
      'agent: 127.0.0.1:15080',
      'agent: 127.0.0.1.example.org:15080',
      'listen.agent: Expected a loopback address, or unsafeNonLoopback: true',
    ],
    [
      'admin: 127.0.0.1:15081',
      'admin: 127.0.0.1:15080',
      'listen.admin: Expected another address than agent',
    ],
    [
      'admin: 127.0.0.1:15081',
      'admin: 127.0.0.1:99999',
      'listen.admin: Expected a port from 0 to 65535',
    ],
    [
      'trustDomain: prod.example.org\n\nlisten',
      'trustDomain: other.example.org\n\nlisten',
      'identity.trustBundles: Expected a bundle of the own trustDomain',
    ],
    [
      'trustDomain: partner.example.net',
      'trustDomain: prod.example.org',
      'identity.trustBundles[1].trustDomain: The trust domain has another bundle already',
    ],
    [
      'iss: https://oncall.example.org',
      'iss: https://approvals.example.org',
      'approvers[1].iss: The approver is listed already',
    ],
    [
      '\ngrants:',
      '\ndelegation: { iss: https://oncall.example.org, jwks: d.json }\ngrants:',
      'delegation.iss: Expected another authority than the approvers: it may not sign a root',
    ],
    [
      'purposes: [incident-response]',
      'purposes: [incident-respons]',
      'approvers[1].purposes[0]: Expected a purpose of grants.purposes; did you mean "incident-response"?',
    ],
    [
      'staleAfterWrites: 1s',
      'staleAfterWrites: 500ms',
      'revocation.staleAfterWrites: Expected more than twice syncInterval, 500 ms',
    ],
    [
      'url: rediss:',
      'url: redis:',
      'revocation.redis.url: Expected rediss instead of redis because caFile, certFile or keyFile is set',
    ],
    [
      'url: rediss://redis.chaperone.svc:6379',
      'url: rediss-cluster://redis.chaperone.svc:66666',
      'revocation.redis.url: Expected ports from 1 to 65535',
    ],
    [
      'username: chaperone',
      'username: chaperone\n    sentinelPasswordFile: s',
      'revocation.redis.sentinelPasswordFile: Expected a redis-sentinel or rediss-sentinel url with it',
    ],
    [
      'username: chaperone',
      'username: chaperone\n    certFile: c.pem',
      'revocation.redis.certFile: Expected keyFile as well',
    ],
    ['writeTimeout: 2s', 'onFailure: unsafe-continue', 'audit.onFailure: Expected spool as well'],
    [
      'writeTimeout: 2s',
      'spool: { file: spool }',
      'audit.spool: Expected onFailure: unsafe-continue as well',
    ],
    [
      'writeTimeout: 2s',
      'onFailure: unsafe-continue\n  spool: { file: /var/log/chaperone/audit.jsonl }',
      'audit.spool.file: Expected another file than sink',
    ],
    [
      'writeTimeout: 2s',
      'onFailure: unsafe-continue\n  spool: { file: /var/log/../log/chaperone/./audit.jsonl }',
      'audit.spool.file: Expected another file than sink',
    ],
  ])('parseConfig() finds the contradiction when %j becomes %j', (from, to, problem) => {
    expect(problemsOf(edited(from, to)).map((line) => line.replace(/^\S+ /, ''))).toContain(problem)
  })

  test('parseConfig() bounds how long a route may be observed', () => {
    const nowMs = Date.UTC(2026, 0, 1)
    const observed = (until: string) =>
      parseConfig(
        example.replace('upstream: github', `upstream: github\n    unsafeObserveUntil: ${until}`),
        'chaperone.yaml',
        { nowMs },
      )
    expect(observed('2026-01-08T00:00:00Z')).toMatchObject({
      ok: true,
      config: { routes: [{ unsafeObserveUntil: Date.UTC(2026, 0, 8) }, {}] },
    })
    expect(observed('2025-01-01T00:00:00Z')).toMatchObject({ ok: true })
    const place = { line: expect.any(Number), col: 25, path: 'routes[0].unsafeObserveUntil' }
    expect(observed('2026-01-08T00:00:01Z')).toMatchObject({
      problems: [{ ...place, message: 'Expected a time at most 7 days ahead' }],
    })
    for (const text of ['2026-01-02', '2026-13-01T00:00:00Z', 'tomorrow']) {
      expect(observed(text)).toMatchObject({
        problems: [{ ...place, message: 'Expected a time such as "2026-11-24T12:00:00Z"' }],
      })
    }
  })

  test('parseConfig() bounds how long a task may be observed, and takes each once', () => {
    const week = "{ task: T-1, until: '2026-01-08T00:00:00Z' }"
    expect(observedTasks(week)).toMatchObject({
      config: {
        policy: { unsafeObserveTasks: [{ task: 'T-1', until: Date.UTC(2026, 0, 8) }] },
      },
    })
    const path = 'policy.unsafeObserveTasks'
    expect(observedTasks(week.replace('00Z', '01Z'), week)).toMatchObject({
      problems: [
        { path: `${path}[0].until`, message: 'Expected a time at most 7 days ahead' },
        { path: `${path}[1].task`, message: 'The task is listed already' },
      ],
    })
    expect(observedTasks('{ task: T-1 }')).toMatchObject({
      problems: [{ path: `${path}[0].until`, message: 'Required' }],
    })
    expect(observedTasks(week.replace('T-1', "'T *'"))).toMatchObject({
      problems: [{ path: `${path}[0].task` }],
    })
  })

  test('parseConfig() wants the section mint when an upstream mints', () => {
    const text = example.replace(/^mint:\n(?: .*\n)+/m, '')
    expect(problemsOf(text)).toEqual([
      `${position(text, 'mint:\n')} upstreams[1].credential.mint: Expected the section "mint" with issuer and keys`,
    ])
  })

  test('parseConfig() wants an OpenAPI document of plain HTTP alone', () => {
    const text = edited('kind: mcp', 'kind: mcp\n    openapi: api.yaml')
    expect(problemsOf(text)).toEqual([
      expect.stringContaining('.openapi: Expected kind: rest with it'),
    ])
  })

  test('parseConfig() allows port 0 twice', () => {
    const text = edited('127.0.0.1:15080', '127.0.0.1:0').replace('127.0.0.1:15081', '127.0.0.1:0')
    expect(problemsOf(text)).toEqual([])
  })
})

function observedTasks(...tasks: readonly string[]): ReturnType<typeof parseConfig> {
  const text = example.replace(/^policy:.*\n(?: .*\n)*/m, '')
  return parseConfig(
    `${text}policy: { unsafeObserveTasks: [${tasks.join()}] }\n`,
    'chaperone.yaml',
    { nowMs: Date.UTC(2026, 0, 1) },
  )
}

describe('loadConfig()', () => {
  test('loadConfig() reports a file that is absent, too large, not UTF-8 or no file', () => {
    const directory = mkdtempSync(join(tmpdir(), 'chaperone-'))
    const path = join(directory, 'chaperone.yaml')
    try {
      expect(messagesOf(path)).toEqual(['The file does not exist'])
      expect(messagesOf(directory)).toEqual(['Expected a regular file'])
      writeFileSync(path, Buffer.from([0x61, 0x3a, 0x20, 0xff]))
      expect(messagesOf(path)).toEqual(['The file is not UTF-8'])
      truncateSync(path, 1024 * 1024 + 1)
      expect(messagesOf(path)).toEqual(['The file has more than 1048576 bytes'])
      writeFileSync(path, example)
      expect(messagesOf(path)).toEqual([])
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

describe('formatProblem()', () => {
  test('formatProblem() gives file, position, setting and message', () => {
    const problem = { file: 'c.yaml', line: 12, col: 5, path: 'a[0].b', message: 'Expected c' }
    expect(formatProblem(problem)).toBe('c.yaml:12:5 a[0].b: Expected c')
    expect(formatProblem({ ...problem, path: '' })).toBe('c.yaml:12:5 Expected c')
  })

  test('formatProblem() escapes a key that would drive a terminal', () => {
    const text = edited('version: 1', `version: 1\n"\\e[2J${'x'.repeat(500)}": 1`)
    const [problem = ''] = problemsOf(text)
    expect(problem).toContain('\\u001b[2Jxxx')
    expect(problem.length).toBeLessThan(150)
  })
})
