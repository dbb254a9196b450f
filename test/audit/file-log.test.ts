import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:fs'
import {
  appendFile,
  mkdtemp,
  open,
  readFile,
  rm,
  stat,
  writeFile,
  type FileHandle,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turnEnd, setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { maxLineBytes, splitLines, verifyChain, type ChainReport } from '../../audit/chain.ts'
import { openAuditLog, type AuditLogOptions } from '../../audit/file-log.ts'
import type { AuditEvent, AuditRecord } from '../../audit/record.ts'
import { manualClock } from '../kit/manual-clock.ts'

const nowMs = Date.UTC(2026, 10, 24, 12)
let folder = ''
let path = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
  path = join(folder, 'audit.ndjson')
})
afterEach(() => rm(folder, { recursive: true }))

describe('openAuditLog()', () => {
  test('writes a record with its envelope when an event is appended', async () => {
    const clock = manualClock(nowMs)
    await using log = await openAuditLog({ ...optionsFor(path), clock })
    clock.advance(1.5)
    await log.append(beat(0))
    const [record] = await recordsOf(path)
    expect(record).toMatchObject({
      v: 1,
      seq: 1,
      ts: '2026-11-24T12:00:00.001Z',
      mono_ns: '1500000',
      sidecar: { instance: 'i1', version: '0.1.0', config_sha: 'c1' },
      type: 'heartbeat',
    })
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  test('keeps the order of the calls when many append at once', async () => {
    await using log = await openAuditLog(optionsFor(path))
    await Promise.all(Array.from({ length: 5000 }, (_, n) => log.append(beat(n))))
    const beats = (await recordsOf(path)).map((record) => 'detail' in record && record.detail)
    expect(beats).toEqual(Array.from({ length: 5000 }, (_, n) => ({ n })))
    expect(await reportOf(path)).toMatchObject({ records: 5000, torn: [] })
    expect(log).toMatchObject({ backlog: 0, healthy: true })
  })

  test('continues the chain when a file is opened again', async () => {
    for (const n of [0, 1, 2]) {
      await using log = await openAuditLog(optionsFor(path))
      await log.append(beat(n))
    }
    const report = await reportOf(path)
    expect(report).toMatchObject({ records: 3, chains: 1, torn: [] })
    expect(report.bad).toBeUndefined()
  })

  test.each([
    ['a piece of a record', '{"decision":{"code":nul'],
    ['half a character', Buffer.from('{"a":"é').subarray(0, -1)],
  ])('keeps the torn bytes and continues the chain when the file ends in %s', async (_, torn) => {
    await fill(path, 2)
    await appendFile(path, torn)
    await fill(path, 2)
    await appendFile(path, torn)
    await fill(path, 1)
    const report = await reportOf(path)
    expect(report).toMatchObject({ records: 5, chains: 1, torn: [3, 6] })
    expect(report.bad).toBeUndefined()
  })

  test('begins the chain when the very first record was torn', async () => {
    await writeFile(path, '{"decis')
    await fill(path, 1)
    expect(await reportOf(path)).toMatchObject({ records: 1, chains: 1, torn: [1] })
  })

  test('continues the chain when only the last newline is missing', async () => {
    await fill(path, 2)
    await writeFile(path, (await readFile(path)).subarray(0, -1))
    await fill(path, 1)
    expect(await reportOf(path)).toMatchObject({ records: 3, torn: [] })
  })

  test('continues the chain when the file is longer than what is read of it', async () => {
    {
      await using log = await openAuditLog(optionsFor(path))
      const text = 'x'.repeat(maxLineBytes - 1000)
      for (let n = 0; n < 6; n += 1) await log.append({ type: 'config', detail: { text } })
    }
    await fill(path, 1)
    expect(await reportOf(path)).toMatchObject({ records: 7, chains: 1, torn: [] })
  })

  test('rejects when the file holds something else', async () => {
    await writeFile(path, 'not a log\n')
    await expect(openAuditLog(optionsFor(path))).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
      message: `"${path}" does not end like an audit log`,
    })
    expect(await readFile(path, 'utf8')).toBe('not a log\n')
  })

  test('rejects when the sink cannot be opened', async () => {
    await expect(openAuditLog(optionsFor(join(path, 'below')))).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
      message: expect.stringContaining('ENOENT'),
    })
    const pipe = makePipe()
    await expect(openAuditLog(optionsFor(pipe))).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
      message: expect.stringContaining('ENXIO'),
    })
  })
})

describe('append()', () => {
  test('rejects and is unhealthy when the disk is full', async () => {
    await using log = await openAuditLog(optionsFor('/dev/full', { writeTimeoutMs: 200 }))
    await expect(log.append(beat(0))).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
      message: 'Cannot write to the audit sink: ENOSPC',
    })
    expect(log).toMatchObject({ healthy: false, backlog: 1 })
    await expect(log.flush()).rejects.toMatchObject({ code: expect.stringMatching(/SINK|TIMEOUT/) })
  })

  test('writes the rejected record first and is healthy again when the sink takes bytes', async () => {
    const result = await runLimited(path)
    expect(result).toEqual({ code: 'ERR_AUDIT_SINK', unhealthy: true, healthyAfter: true })
    const report = await reportOf(path)
    expect(report).toMatchObject({ records: 3, chains: 1, torn: [] })
    expect(report.bad).toBeUndefined()
  })

  test('rejects by the time limit, then at once, when nobody reads the pipe', async () => {
    const pipe = makePipe()
    await using reader = await open(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
    await using log = await openAuditLog(optionsFor(pipe, { maxBacklog: 3, writeTimeoutMs: 500 }))
    const big: AuditEvent = { type: 'config', detail: { text: 'x'.repeat(100_000) } }
    const waiting = await Promise.allSettled([big, big, big, big].map((event) => log.append(event)))
    expect(waiting.map((one) => one.status === 'rejected' && one.reason.code)).toEqual([
      'ERR_AUDIT_TIMEOUT',
      'ERR_AUDIT_TIMEOUT',
      'ERR_AUDIT_TIMEOUT',
      'ERR_AUDIT_BACKLOG',
    ])
    expect(log).toMatchObject({ healthy: false, backlog: 3 })
    const refused = log.append(big).catch((error: unknown) => error)
    expect(await Promise.race([refused, turnEnd('not at once')])).toMatchObject({
      code: 'ERR_AUDIT_BACKLOG',
    })

    const received = receive(reader, 3)
    await log.flush()
    expect(log).toMatchObject({ healthy: true, backlog: 0 })
    const report = await verifyChain(splitLines(only(await received)))
    expect(report).toMatchObject({ records: 3, torn: [] })
    expect(report.bad).toBeUndefined()
  })

  test('rejects when the log is closed', async () => {
    const log = await openAuditLog(optionsFor(path))
    await log[Symbol.asyncDispose]()
    await log[Symbol.asyncDispose]()
    await expect(log.append(beat(0))).rejects.toMatchObject({ code: 'ERR_AUDIT_SINK' })
  })

  test('writes to standard output when the sink says so', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      '--input-type=module',
      '--eval',
      script('stdout', 'for (let n = 0; n < 3; n++) await log.append(beat(n))'),
    ])
    const report = await verifyChain(splitLines(only(Buffer.from(stdout))))
    expect(report).toMatchObject({ records: 3, chains: 1, torn: [] })
  })

  test('keeps to the time limit when nobody reads standard output', async () => {
    const code = `
      const detail = { text: 'x'.repeat(200_000) }
      const error = await log.append({ type: 'config', detail }).catch((e) => e)
      process.stderr.write(error.code)`
    const child = spawn(process.execPath, ['--input-type=module', '--eval', script('stdout', code)])
    const [told] = await once(child.stderr, 'data')
    expect(String(told)).toBe('ERR_AUDIT_TIMEOUT')
    child.kill('SIGKILL')
  })
})

describe('dispose', () => {
  test('writes what is waiting when the log is closed', async () => {
    const log = await openAuditLog(optionsFor(path))
    const appended = Promise.all([log.append(beat(0)), log.append(beat(1))])
    await log[Symbol.asyncDispose]()
    await appended
    expect(await reportOf(path)).toMatchObject({ records: 2 })
  })
})

function optionsFor(sink: string, more: Partial<AuditLogOptions> = {}): AuditLogOptions {
  return {
    sink,
    instance: 'i1',
    version: '0.1.0',
    configSha: () => 'c1',
    maxBacklog: 10_000,
    writeTimeoutMs: 5000,
    clock: manualClock(nowMs),
    ...more,
  }
}

const beat = (n: number): AuditEvent => ({ type: 'heartbeat', detail: { n } })

async function fill(file: string, count: number): Promise<void> {
  await using log = await openAuditLog(optionsFor(file))
  for (let n = 0; n < count; n += 1) await log.append(beat(n))
}

async function recordsOf(file: string): Promise<readonly AuditRecord[]> {
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n')
  return lines.map((line) => JSON.parse(line) as AuditRecord)
}

async function reportOf(file: string): Promise<ChainReport> {
  return verifyChain(splitLines(only(await readFile(file))))
}

async function* only(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}

function makePipe(): string {
  const pipe = join(folder, 'pipe')
  execFileSync('mkfifo', [pipe])
  return pipe
}

/** Reads so many lines from a pipe that does not block. */
async function receive(reader: FileHandle, lines: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let count = 0
  while (count < lines) {
    // An empty pipe gives EAGAIN.
    const piece = await reader.read(Buffer.alloc(65_536)).catch(() => delay(5))
    if (piece) pieces.push(piece.buffer.subarray(0, piece.bytesRead))
    count = Buffer.concat(pieces).filter((byte) => byte === 0x0a).length
  }
  return Buffer.concat(pieces)
}

/** A process of its own that opens a log. */
function script(sink: string, body: string): string {
  const module = new URL('../../audit/file-log.ts', import.meta.url).href
  return `
    import { openAuditLog } from '${module}'
    const log = await openAuditLog({
      sink: ${JSON.stringify(sink)}, instance: 'i1', version: '0.1.0', configSha: () => 'c1',
      maxBacklog: 100, writeTimeoutMs: 500,
      clock: { now: () => Date.now(), monotonic: () => performance.now() },
    })
    const beat = (n) => ({ type: 'heartbeat', detail: { n } })
    ${body}`
}

/** Fills a file up to the size limit of its process, so that a write stops within a record; then lifts the limit. */
async function runLimited(file: string): Promise<unknown> {
  const code = `
    import { execFileSync } from 'node:child_process'
    process.on('SIGXFSZ', () => {})
    await log.append(beat(0))
    execFileSync('prlimit', ['--pid', String(process.pid), '--fsize=1000:unlimited'])
    const detail = { text: 'x'.repeat(2000) }
    const error = await log.append({ type: 'config', detail }).catch((e) => e)
    const unhealthy = !log.healthy
    execFileSync('prlimit', ['--pid', String(process.pid), '--fsize=unlimited:unlimited'])
    await log.append(beat(2)).catch(() => log.flush())
    process.stdout.write(JSON.stringify({ code: error.code, unhealthy, healthyAfter: log.healthy }))`
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--input-type=module',
    '--eval',
    script(file, code),
  ])
  return JSON.parse(stdout)
}
