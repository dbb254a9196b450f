import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { registerAudit } from '../../cli/audit.ts'
import { decisionEvent, openTestLog, revocationEvent } from '../kit/audit-records.ts'

let folder = ''
let file = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
  file = join(folder, 'audit.ndjson')
  await using opened = await openTestLog(file)
  await opened.log.append(decisionEvent({ id: 'd1' }))
  await opened.log.append({ type: 'heartbeat', detail: {} })
  await opened.log.append(revocationEvent())
})
afterEach(async () => {
  vi.restoreAllMocks()
  process.exitCode = 0
  await rm(folder, { recursive: true })
})

describe('chaperone audit export --format ocsf', () => {
  test('prints one event per line, and nothing for what has none', async () => {
    const { code, out, err } = await run(file)
    expect([code, err]).toEqual([0, ''])
    const events = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(events.map(({ type_name }) => type_name)).toEqual([
      'API Activity: Read',
      'Entity Management: Disable',
    ])
  })

  test('ends with 1 at the line that breaks the chain, and gives nothing from there on', async () => {
    await writeFile(file, (await readFile(file, 'utf8')).replace('"detail":{}', '"detail":{"n":1}'))
    const { code, out, err } = await run(file)
    expect([code, err]).toEqual([1, `${file}:2: hash mismatch\n`])
    expect(out.trim().split('\n')).toHaveLength(1)
  })

  test('ends with 2 when a file cannot be read', async () => {
    const { code, err } = await run(join(folder, 'absent'))
    expect(code).toBe(2)
    expect(err).toContain('ENOENT')
  })
})

async function run(path: string): Promise<{ code: unknown; out: string; err: string }> {
  const out: string[] = []
  const err: string[] = []
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => out.push(String(text)) > 0)
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => err.push(String(text)) > 0)
  const program = new Command()
  registerAudit(program)
  await program.parseAsync(['audit', 'export', path, '--format', 'ocsf'], { from: 'user' })
  vi.restoreAllMocks()
  return { code: process.exitCode, out: out.join(''), err: err.join('') }
}
