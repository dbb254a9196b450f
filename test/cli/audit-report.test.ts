import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { startCheckpoints } from '../../audit/checkpoint.ts'
import { registerAudit } from '../../cli/audit.ts'
import {
  decisionEvent,
  logStartMs,
  openTestLog,
  outcomeEvent,
  revocationEvent,
} from '../kit/audit-records.ts'
import { jwksDocument, names, signingKey, type SigningKey } from '../kit/tokens.ts'

let folder = ''
let file = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
  file = join(folder, 'audit.ndjson')
  await using opened = await openTestLog(file)
  const { log, clock } = opened
  await log.append({ type: 'start', detail: {} })
  await log.append(decisionEvent({ id: 'd1' }))
  clock.advance(5)
  await log.append(revocationEvent({ exchanges_cut: 1 }))
  await log.append(
    outcomeEvent('d1', { rid: 'rev-1', how: 'reset', afterMs: 2.5, lastDownMs: -4.5 }),
  )
  clock.advance(10)
  await log.append(decisionEvent({ id: 'd2', effect: 'deny', rid: 'rev-1' }))
  await log.append(decisionEvent({ id: 'd3', effect: 'deny', rid: 'rev-1', retries: 1 }))
  await log.append({ type: 'stop', detail: {} })
})
afterEach(async () => {
  vi.restoreAllMocks()
  process.exitCode = 0
  await rm(folder, { recursive: true })
})

describe('chaperone audit report', () => {
  test('prints the closed account and ends with 0', async () => {
    expect(await run('report', file, '--revocation', 'rev-1')).toEqual({
      code: 0,
      out: `revocation  rev-1  revoke task:T-1, by ops: wrong customer
recorded    2026-11-24T12:00:00.000Z
in force    after 5 ms, 1 cut, on record until 2026-11-24T12:00:00.015Z, sidecar i1, ${file}
cut         1 by reset, p50 2.5 ms, max 2.5 ms
bytes       10 up, 100 down before the cut
last byte   up none, down 4.5 ms before
refused     first after 10 ms, decision d2, sidecar i1
attempts    1 new decisions, 1 automatic retries (retry 1: 1), all refused
acted after revocation: no
gaps        none
account     clean
`,
      err: '',
    })
  })

  test('names the record and ends with 1 when the task acted after it', async () => {
    await using opened = await openTestLog(file, { instance: 'i2' })
    await opened.log.append(revocationEvent())
    await opened.log.append(decisionEvent({ id: 'd\u{1b}[2J4' }))
    const { code, out } = await run('report', file, '--revocation', 'rev-1')
    expect(code).toBe(1)
    expect(out).toContain('acted after revocation: YES, 1 decisions\n')
    expect(out).toContain(`task T-1, decision d?[2J4, ${file} seq 9\n`)
    expect(out).toContain('account     acted\n')
  })

  test('ends with 1 and says where when a chain is broken', async () => {
    await writeFile(file, (await readFile(file, 'utf8')).replace('"d3"', '"d4"'))
    const { code, out } = await run('report', file, '--revocation', 'rev-1')
    expect(code).toBe(1)
    expect(out).toContain(`gap         chain: line 6: hash mismatch, ${file}\naccount     open\n`)
  })

  test('prints the same as JSON', async () => {
    const { code, out } = await run('report', file, '--revocation', 'rev-1', '--json')
    expect(JSON.parse(out)).toMatchObject({
      verdict: 'clean',
      attempts: { decisions: 1, automatic_retries: 1 },
    })
    expect(code).toBe(0)
  })

  test('ends with 1 when no file knows the revocation, and with 2 when one cannot be read', async () => {
    expect(await run('report', file, '--revocation', 'rev-2')).toEqual({
      code: 1,
      out: '',
      err: 'Revocation rev-2 is on no record\n',
    })
    const absent = await run('report', file, join(folder, 'absent'), '--revocation', 'rev-1')
    expect(absent).toMatchObject({ code: 2, out: '' })
    expect(absent.err).toContain('ENOENT')
  })
})

describe('chaperone audit query', () => {
  test.each([
    [
      ['--rid', 'rev-1'],
      [3, 4, 5, 6],
    ],
    [
      ['--txn', 'T-1'],
      [2, 3, 4, 5, 6],
    ],
    [['--txn', 'T-2'], []],
    [
      ['--agent', names.agent],
      [2, 5, 6],
    ],
    [
      ['--code', 'task-terminated'],
      [4, 5, 6],
    ],
    [
      ['--since', '2026-11-24T12:00:00.015Z'],
      [5, 6, 7],
    ],
    [
      ['--until', '2026-11-24T12:00:00.005Z'],
      [1, 2],
    ],
    [
      ['--rid', 'rev-1', '--since', '2026-11-24T13:00:00.015+01:00'],
      [5, 6],
    ],
  ])('prints the lines that fit %j', async (options, wanted) => {
    const lines = (await readFile(file, 'utf8')).trim().split('\n')
    const { code, out } = await run('query', file, '--json', ...options)
    expect(out).toBe(wanted.map((seq) => `${lines[seq - 1] ?? ''}\n`).join(''))
    expect(code).toBe(0)
  })

  test('prints a line of words for each record', async () => {
    const { out } = await run('query', file, '--rid', 'rev-1', '--code', 'task-terminated')
    expect(out)
      .toBe(`2026-11-24T12:00:00.005Z  outcome  cut task-terminated reset after 2.5 ms  10 B up  100 B down  T-1
2026-11-24T12:00:00.015Z  decision  deny task-terminated  GET /things  T-1  ${names.agent}  rev-1
2026-11-24T12:00:00.015Z  decision  deny task-terminated  GET /things  T-1  ${names.agent}  rev-1
`)
  })

  test('ends with 1 and counts the lines that are no records', async () => {
    await writeFile(file, `${await readFile(file, 'utf8')}{"v":2}\nnothing\n`)
    const { code, err } = await run('query', file, '--rid', 'rev-1')
    expect(err).toBe(`${file}: 2 lines are no records of this version\n`)
    expect(code).toBe(1)
  })
})

describe('chaperone audit verify --key', () => {
  test('says up to where the log is signed, and ends with 1 for another key', async () => {
    const key = await signingKey('EdDSA')
    await sign(key)
    const at = new Date(logStartMs).toISOString()
    expect(await run('verify', file, '--key', await keyFile(key))).toEqual({
      code: 0,
      out: `9 records, chain intact, first ${at} last ${at}\nsigned up to seq 8 at ${at}, 1 checkpoints, 0 records after the last one\n`,
      err: '',
    })
    const other = await run('verify', file, '--key', await keyFile(await signingKey('EdDSA')))
    expect(other.out).toContain(`${file}: record 9: the key of the signature is not known\n`)
    expect(other.code).toBe(1)
  })

  test('ends with 1 when nothing is signed, and throws without quoting it when the key is private', async () => {
    const key = await signingKey('EdDSA')
    const unsigned = await run('verify', file, '--key', await keyFile(key))
    expect(unsigned.out).toContain(`${file}: no signed checkpoint\n`)
    expect(unsigned.code).toBe(1)
    const path = join(folder, 'private')
    await writeFile(path, JSON.stringify({ keys: [key.privateJwk] }))
    const secret = await run('verify', file, '--key', path).catch((error: unknown) => error)
    expect(secret).toMatchObject({ message: expect.stringContaining('it is not a public key') })
    expect(String(secret)).not.toContain(String(key.privateJwk.d))
  })
})

async function sign(key: SigningKey): Promise<void> {
  await using opened = await openTestLog(file, { instance: 'i2' })
  const { log, clock } = opened
  await using _checkpoints = startCheckpoints(log, {
    keys: () => JSON.stringify(key.privateJwk),
    everyMs: 60_000,
    instance: 'i2',
    clock,
    onError: (error) => {
      throw error
    },
  })
  await log.append({ type: 'start', detail: {} })
}

async function keyFile(key: SigningKey): Promise<string> {
  const path = join(folder, `${key.kid}.json`)
  await writeFile(path, jwksDocument([key]))
  return path
}

async function run(
  ...args: readonly string[]
): Promise<{ code: unknown; out: string; err: string }> {
  const out: string[] = []
  const err: string[] = []
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => out.push(String(text)) > 0)
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => err.push(String(text)) > 0)
  const program = new Command()
  registerAudit(program)
  await program.parseAsync(['audit', ...args], { from: 'user' })
  vi.restoreAllMocks()
  return { code: process.exitCode, out: out.join(''), err: err.join('') }
}
