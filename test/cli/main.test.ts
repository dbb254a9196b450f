import { readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describe, expect, test } from 'vitest'
import { runCli, temporaryFile, type CliResult } from '../kit/world.ts'

const manifest: { readonly version: string } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
)
const commands = ['run', 'dev', 'check', 'task', 'revoke', 'pause', 'quarantine', 'revocations']

function expectNoStack({ stderr }: CliResult): void {
  expect(stderr).not.toMatch(/^ +at /m)
  expect(stderr).not.toContain('node:internal')
}

describe('chaperone', () => {
  test('--version prints the version of the package and ends with 0', async () => {
    expect(await runCli(['--version'])).toEqual({
      code: 0,
      stdout: `${manifest.version}\n`,
      stderr: '',
    })
  })

  test('--help lists each command once and ends with 0', async () => {
    const { code, stdout } = await runCli(['--help'])
    expect(code).toBe(0)
    for (const name of [...commands, 'keygen', 'audit']) {
      const lines = stdout.split('\n').filter((line) => line.startsWith(`  ${name} `))
      expect([name, lines.length]).toEqual([name, 1])
    }
  })

  test.each(commands.map((name) => [name]))('%s --help ends with 0', async (name) => {
    const { code, stdout } = await runCli([name, '--help'])
    expect(code).toBe(0)
    expect(stdout).toContain(`Usage: chaperone ${name}`)
  })

  test.each([
    ['no command', [], 'Usage: chaperone'],
    ['an unknown command', ['frobnicate'], "unknown command 'frobnicate'"],
    ['a name that every object has', ['constructor'], "unknown command 'constructor'"],
    ['an unknown option', ['run', '--frobnicate'], "unknown option '--frobnicate'"],
    ['an option without its value', ['run', '-c'], 'argument missing'],
    ['a group without its command', ['task'], 'Usage: chaperone task'],
    ['an unknown command of a group', ['audit', 'frobnicate'], "unknown command 'frobnicate'"],
    ['one argument too many', ['check', 'frobnicate'], 'too many arguments'],
  ])('ends with 64 and says why when there is %s', async (_case, args, message) => {
    const result = await runCli(args)
    expect(result).toMatchObject({ code: 64, stdout: '' })
    expect(result.stderr).toContain(message)
    expectNoStack(result)
  })

  test.each([['run'], ['check'], ['revocations']])(
    '%s ends with 3 and names the place when the configuration is not valid',
    async (name) => {
      const path = await temporaryFile('chaperone.yaml', 'version: 1\nversion: 1\n')
      const result = await runCli([name, '-c', path])
      await rm(dirname(path), { recursive: true })
      expect(result.code).toBe(3)
      expect(result.stderr).toContain(`${path}:2:1 `)
      expectNoStack(result)
    },
  )

  test('check ends with 64 for an option that it does not know', async () => {
    expect(await runCli(['check', '--strict'])).toMatchObject({ code: 64 })
  })
})
