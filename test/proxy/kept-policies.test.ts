import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { askPolicies } from '../../policy/ask-policies.ts'
import { createEngine } from '../../policy/cedar-engine.ts'
import { buildOrRecall } from '../../proxy/kept-policies.ts'
import { cedarSchema, loadPolicyFiles } from '../../proxy/policy-files.ts'
import { input } from '../kit/decide-input.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chaperone-kept-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const options = { schema: cedarSchema() }
const build = (more: readonly string[] = []) =>
  buildOrRecall(
    [...loadPolicyFiles({}), ...more.map((text, n) => ({ file: `${n}.cedar`, text }))],
    options,
    folder,
  )
const onlyFile = async (): Promise<string> => {
  const [name = ''] = await readdir(folder)
  return join(folder, name)
}

/** What was recalled has no instance of the engine: only what was just built has one. */
const isRecalled = (built: ReturnType<typeof build>): boolean => built.ok && !('cedar' in built)

describe('buildOrRecall()', () => {
  test('gives what was built of the same texts, and it decides the same', () => {
    const built = build()
    const recalled = build()
    if (!built.ok || !recalled.ok) throw new Error('The shipped policies do not compile')
    expect([isRecalled(built), isRecalled(recalled)]).toEqual([false, true])
    const { set, policies } = built
    expect(recalled).toEqual({ ok: true, set, policies })
    using first = createEngine(set)
    using second = createEngine(recalled.set)
    const decision = askPolicies({ ...input(), engine: first })
    expect(decision.outcome).toBe('allow')
    expect(askPolicies({ ...input(), engine: second })).toEqual(decision)
  })

  test('builds anew when a text is another', () => {
    build()
    const forbid = '@id("x/none") forbid (principal, action, resource);'
    const other = build([forbid])
    expect(isRecalled(other)).toBe(false)
    expect(other.ok && other.set.policies.map(({ id }) => id)).toContain('x/none')
    expect(isRecalled(build([forbid]))).toBe(true)
  })

  test('builds anew when another way to build is asked for', () => {
    build()
    const sources = loadPolicyFiles({})
    const schema = `${options.schema}\n// other`
    expect(isRecalled(buildOrRecall(sources, { schema }, folder))).toBe(false)
    expect(isRecalled(buildOrRecall(sources, { ...options, withShadow: true }, folder))).toBe(false)
  })

  test.each([
    ['a byte changed', (bytes: Buffer) => bytes.fill(bytes.readUInt8(5_000) ^ 1, 5_000, 5_001)],
    ['its end missing', (bytes: Buffer) => bytes.subarray(0, -1)],
    ['nothing in it', () => Buffer.alloc(0)],
  ])('builds anew when what was kept has %s, and keeps that', async (_name, damage) => {
    build()
    const path = await onlyFile()
    const whole = await readFile(path)
    await writeFile(path, damage(Buffer.from(whole)))
    expect(isRecalled(build())).toBe(false)
    expect(isRecalled(build())).toBe(true)
  })

  test('keeps nothing of policies that do not compile', async () => {
    expect(build(['permit (principal, action, resource)']).ok).toBe(false)
    expect(await readdir(folder)).toEqual([])
  })

  test('keeps the last eight', async () => {
    for (let n = 0; n < 10; n++) build([`@id("x/${n}") permit (principal, action, resource);`])
    expect(await readdir(folder)).toHaveLength(8)
    expect(isRecalled(build(['@id("x/9") permit (principal, action, resource);']))).toBe(true)
  })

  test('builds when nothing can be kept', async () => {
    await rm(folder, { recursive: true })
    await writeFile(folder, 'not a folder')
    expect(build().ok).toBe(true)
    expect(isRecalled(build())).toBe(false)
  })
})
