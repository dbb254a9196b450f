import { execFile } from 'node:child_process'
import { cp, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

const project = fileURLToPath(new URL('../..', import.meta.url))
let folder = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chaperone-dist-'))
  await cp(join(project, 'dist'), join(folder, 'dist'), { recursive: true, filter: isBuilt })
  await cp(join(project, 'package.json'), join(folder, 'package.json'))
  await symlink(join(project, 'node_modules'), join(folder, 'node_modules'))
})
afterEach(() => rm(folder, { recursive: true }))

describe('chaperone', () => {
  test('leaves what it compiled beside the program when a command ends', async () => {
    expect((await run('check', '--help')).stdout).toContain('Usage: chaperone check')
    expect(await readdir(join(folder, 'dist/.compiled'))).toHaveLength(1)
  })

  test('works without when nothing can be kept', async () => {
    await writeFile(join(folder, 'dist/.compiled'), 'not a folder')
    expect(await run('check', '--help')).toMatchObject({
      stdout: expect.stringContaining('Usage: chaperone check'),
      stderr: '',
    })
    expect((await stat(join(folder, 'dist/.compiled'))).isFile()).toBe(true)
  })

  test('--version loads no package', async () => {
    await rm(join(folder, 'node_modules'))
    expect((await run('--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  })
})

function isBuilt(path: string): boolean {
  return !path.endsWith('.compiled')
}

function run(...args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
  return promisify(execFile)(process.execPath, [join(folder, 'dist/cli/main.js'), ...args])
}
