import { execFileSync, spawnSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
const secret = 'tok-5up3r-secret'

describe('createLog()', () => {
  test('writes JSON lines to stderr and nothing to stdout', () => {
    const { lines, stdout } = logged(`log.info({ rid: 'r1' }, 'hello')`)
    expect(stdout).toBe('')
    expect(lines).toEqual([
      { level: 30, time: expect.stringMatching(/^\d{4}-.+Z$/), rid: 'r1', msg: 'hello' },
    ])
  })

  test('leaves out what is below its level', () => {
    expect(logged(`log.debug({}, 'fine'); log.warn({}, 'coarse')`).lines).toMatchObject([
      { msg: 'coarse' },
    ])
  })

  test.each([
    ['an error', `new Error('Bad token ' + secret)`],
    ['a cause', `new Error('outer', { cause: new Error('\\n    at ' + secret) })`],
    ['a message that looks like frames', `new TypeError('x\\n    at f (' + secret + ':1:1)')`],
    ['a message of Node, whose codes begin like ours', `caught(() => Buffer.alloc(secret))`],
    ['an invalid URL', `caught(() => new URL(secret))`],
    ['a JSON error', `caught(() => JSON.parse(secret))`],
    ['an aggregate', `new AggregateError([new Error(secret)], secret)`],
    ['own members', `Object.assign(new Error('x'), { token: secret, headers: { a: secret } })`],
    ['no error at all', `secret`],
    ['a name', `Object.assign(new Error('x'), { name: secret })`],
    ['a stack of its own', `Object.assign(new Error('x'), { stack: '    at ' + secret })`],
  ])('never shows the secret in %s of somebody else', (_, error) => {
    const { stderr, lines } = logged(
      `log.error({ err: ${error} }, 'failed'); log.error({ err: ${error} }); log.error(${error} instanceof Error ? ${error} : {})`,
    )
    expect(lines).toHaveLength(3)
    expect(stderr).not.toContain(secret)
    expect(lines[0]).toMatchObject({ msg: 'failed', err: { type: expect.any(String) } })
  })

  test('shows code and frames of a foreign error, and the message too of our own', () => {
    const own = `new (await import('./credential/issuer.ts')).CredentialError('file missing')`
    const { lines } = logged(`
      log.error({ err: caught(() => Buffer.alloc('x')) }, 'foreign')
      log.error({ err: ${own} }, 'own')`)
    expect(lines).toMatchObject([
      {
        err: {
          type: 'TypeError',
          code: 'ERR_INVALID_ARG_TYPE',
          frames: expect.arrayContaining([expect.stringMatching(/^ {4}at /)]),
        },
      },
      {
        err: {
          type: 'CredentialError',
          code: 'ERR_CREDENTIAL_UNAVAILABLE',
          message: 'file missing',
        },
      },
    ])
  })

  test.each(['authorization', 'headers', 'rawHeaders', 'cookie', 'token', 'secret', 'password'])(
    'redacts %s, at the top and one level down',
    (name) => {
      const { stderr, lines } = logged(
        `log.error({ ${name}: secret, of: { ${name}: [secret] } }, 'x')`,
      )
      expect(stderr).not.toContain(secret)
      expect(lines[0]).toMatchObject({ [name]: '[redacted]', of: { [name]: '[redacted]' } })
    },
  )

  test('knows the code of each of our errors: else its message would be missing', async () => {
    const known = await readFile(`${root}proxy/log.ts`, 'utf8')
    const files = execFileSync('git', ['ls-files', '*.ts', ':!test', ':!bench', ':!examples'], {
      cwd: root,
      encoding: 'utf8',
    })
    const declared = new Set<string>()
    for (const file of files.trim().split('\n')) {
      const text = await readFile(`${root}${file}`, 'utf8')
      for (const [declaration] of text.matchAll(
        /^ {2}readonly code(?: =|:)[\s|]*(?:'ERR_\w+'[\s|]*)+/gm,
      ))
        for (const [, code = ''] of declaration.matchAll(/'(ERR_\w+)'/g)) declared.add(code)
    }
    expect(declared.size).toBeGreaterThan(20)
    expect([...declared].filter((code) => !known.includes(`'${code}'`))).toEqual([])
  })
})

/** Runs the code in a process of its own: the log writes to the file descriptor. */
function logged(code: string) {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `import { createLog } from './proxy/log.ts'
       const secret = ${JSON.stringify(secret)}
       const log = createLog({ level: 'info' })
       function caught(act) { try { act() } catch (error) { return error } }
       ${code}`,
    ],
    { cwd: root, encoding: 'utf8' },
  )
  if (status !== 0) throw new Error(stderr)
  const lines: readonly unknown[] = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  return { stdout, stderr, lines }
}
