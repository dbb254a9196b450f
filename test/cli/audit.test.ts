import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createChain } from '../../audit/chain.ts'
import { registerAudit } from '../../cli/audit.ts'

let folder = ''
let path = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
  path = join(folder, 'audit.ndjson')
  await writeFile(path, sealed(3))
})
afterEach(async () => {
  vi.restoreAllMocks()
  process.exitCode = 0
  await rm(folder, { recursive: true })
})

describe('chaperone audit verify', () => {
  test('prints a summary and ends with 0 when the chain is intact', async () => {
    expect(await verify(path)).toEqual({
      code: 0,
      out: '3 records, chain intact, first 2026-11-24T12:00:00.000Z last 2026-11-24T12:00:02.000Z\n',
      err: '',
    })
  })

  test('prints the torn line too when a write ended early', async () => {
    await writeFile(path, `${await readFile(path, 'utf8')}{"detail`)
    const { code, out } = await verify(path)
    expect(code).toBe(0)
    expect(out).toContain(`${path}:4: torn line: a write ended early\n3 records, chain intact`)
  })

  test('prints file, line and fault and ends with 1 when a record was changed', async () => {
    await writeFile(path, (await readFile(path, 'utf8')).replace('"n":1', '"n":9'))
    expect(await verify(path)).toEqual({ code: 1, out: `${path}:2: hash mismatch\n`, err: '' })
  })

  test('ends with 0 only by the option when the chain begins anew', async () => {
    await writeFile(path, sealed(2) + sealed(1))
    expect(await verify(path)).toMatchObject({ code: 1, out: `${path}:3: seq gap\n` })
    const { code, out } = await verify(path, '--restarts')
    expect(code).toBe(0)
    expect(out).toContain('3 records, 2 chains, each intact')
  })

  test('ends with 2 when the file cannot be read', async () => {
    const { code, out, err } = await verify(join(folder, 'absent'))
    expect(code).toBe(2)
    expect(out).toBe('')
    expect(err).toContain('ENOENT')
  })
})

async function verify(
  ...args: readonly string[]
): Promise<{ code: unknown; out: string; err: string }> {
  const out: string[] = []
  const err: string[] = []
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => out.push(String(text)) > 0)
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => err.push(String(text)) > 0)
  const program = new Command()
  registerAudit(program)
  await program.parseAsync(['audit', 'verify', ...args], { from: 'user' })
  vi.restoreAllMocks()
  return { code: process.exitCode, out: out.join(''), err: err.join('') }
}

function sealed(count: number): string {
  const chain = createChain()
  const sidecar = { instance: 'i1', version: '0.1.0', config_sha: 'c1' }
  const lines = Array.from({ length: count }, (_, n) =>
    chain.seal(
      { type: 'heartbeat', detail: { n } },
      { ts: `2026-11-24T12:00:0${n}.000Z`, mono_ns: '0', sidecar },
    ),
  )
  return lines.map((line) => `${line}\n`).join('')
}
