import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runCli } from '../kit/world.ts'

const examples = fileURLToPath(new URL('../../examples/policies/', import.meta.url))
let directory: string
let cases: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chaperone-policies-'))
  await cp(examples, directory, { recursive: true })
  cases = join(directory, 'refunds.test.yaml')
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const policy = (...args: readonly string[]) => runCli(['policy', ...args])

async function replace(
  file: string,
  { from, to }: { readonly from: string; readonly to: string },
): Promise<void> {
  const path = join(directory, file)
  const text = await readFile(path, 'utf8')
  expect(text).toContain(from)
  await writeFile(path, text.replace(from, to))
}

describe('chaperone policy test', () => {
  test('holds for the examples, with coverage and mutants', async () => {
    const { code, stdout } = await policy('test', cases, '-d', directory, '--coverage', '--mutate')
    expect(stdout).toContain('6 held, 0 did not')
    expect(code).toBe(0)
  })

  test('names the case that does not hold, and what came instead', async () => {
    await replace('refunds.cedar', { from: '<= 500', to: '<= 1000' })
    const { code, stdout } = await policy('test', cases, '-d', directory)
    expect(stdout).toContain('FAIL  a large refund: expected deny, got allow by team/as-granted')
    expect(code).toBe(1)
  })

  test('says when another policy decided than the one that was named', async () => {
    await replace('refunds.test.yaml', { from: 'by: team/large-refund', to: 'by: team/other' })
    const { code, stdout } = await policy('test', cases, '-d', directory)
    expect(stdout).toContain('expected deny by team/other, got deny by team/large-refund')
    expect(code).toBe(1)
  })

  test('finds the policy that no case holds, and the one that never decided', async () => {
    await writeFile(
      join(directory, 'extra.cedar'),
      '@id("team/extra") forbid (principal, action, resource == Chaperone::Upstream::"nobody");\n',
    )
    const { code, stdout } = await policy('test', cases, '-d', directory, '--coverage', '--mutate')
    expect(stdout).toContain('NEVER DECIDED  team/extra')
    expect(stdout).toContain('NOT HELD  team/extra')
    expect(code).toBe(1)
  })

  test('says where a case file is wrong, and what was perhaps meant', async () => {
    await writeFile(cases, 'cases:\n  - name: x\n    request: GET /a\n    expct: allow\n')
    const { code, stderr } = await policy('test', cases, '-d', directory)
    expect(stderr).toContain(`${cases}:4:5 cases[0].expct: Unknown setting; did you mean "expect"?`)
    expect(code).toBe(3)
  })

  test('refuses a case that asks for nothing, or for two things', async () => {
    await writeFile(cases, 'cases:\n  - { name: x, expect: allow }\n')
    const { code, stderr } = await policy('test', cases, '-d', directory)
    expect(stderr).toContain('Expected either request or call')
    expect(code).toBe(3)
  })
})

describe('chaperone policy check', () => {
  test('says where a policy is wrong', async () => {
    await replace('refunds.cedar', { from: 'context.tool', to: 'context.tol' })
    const { code, stderr } = await policy('check', '-d', directory)
    expect(stderr).toMatch(/refunds\.cedar:\d+:\d+ .*tol/)
    expect(code).toBe(1)
  })

  test('counts the shipped default without a directory', async () => {
    const { code, stdout } = await policy('check')
    expect(stdout).toContain('2 policies')
    expect(code).toBe(0)
  })
})

describe('chaperone policy fmt', () => {
  test('formats in place, keeps comments, and then finds nothing to do', async () => {
    const file = join(directory, 'refunds.cedar')
    await replace('refunds.cedar', { from: 'forbid (\n', to: 'forbid  (  ' })
    expect(await policy('fmt', '--check', file)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('not formatted'),
    })
    expect(await policy('fmt', file)).toMatchObject({ code: 0 })
    expect(await readFile(file, 'utf8')).toBe(
      await readFile(join(examples, 'refunds.cedar'), 'utf8'),
    )
    expect(await policy('fmt', '--check', file)).toMatchObject({ code: 0 })
  })

  test('holds for all shipped and example policies', async () => {
    const shipped = fileURLToPath(new URL('../../policy/cedar/', import.meta.url))
    const files = [shipped, examples].map(async (folder) =>
      (await readdir(folder))
        .filter((name) => name.endsWith('.cedar'))
        .map((name) => join(folder, name)),
    )
    const { code, stderr } = await policy('fmt', '--check', ...(await Promise.all(files)).flat())
    expect(stderr).toBe('')
    expect(code).toBe(0)
  })
})

describe('chaperone policy show', () => {
  test('prints the system policies first', async () => {
    const { stdout } = await policy('show', '-d', directory)
    expect(stdout.indexOf('system/sensitivity')).toBeGreaterThan(-1)
    expect(stdout.indexOf('system/sensitivity')).toBeLessThan(stdout.indexOf('team/large-refund'))
  })
})
