import { execFile, execFileSync } from 'node:child_process'
import { constants } from 'node:fs'
import { appendFile, mkdtemp, open, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turnEnd, setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createChain, splitLines, verifyChain, type ChainReport } from '../../audit/chain.ts'
import type { AuditEvent } from '../../audit/record.ts'
import { logStartMs, openTestLog } from '../kit/audit-records.ts'

let folder = ''
let sink = ''
let file = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
  sink = join(folder, 'audit.ndjson')
  file = join(folder, 'spool')
})
afterEach(() => rm(folder, { recursive: true }))

describe('append() with a spool', () => {
  test('goes on while nobody reads the sink, and gives all in order with the gap when somebody does', async () => {
    await using reader = await openPipe()
    const causes: string[] = []
    await using opened = await openTestLog(sink, {
      writeTimeoutMs: 200,
      spool: { file, maxBytes: 10_000_000 },
      onSpooling: (cause) => causes.push(cause),
    })
    const { log } = opened
    // More than a pipe holds.
    await log.append(big(0))
    // The sink is known to fail: no other record waits for the time limit.
    let kept = false
    const second = log.append(big(1)).then(() => (kept = true))
    await turnEnd()
    expect(kept).toBe(true)
    await second
    for (let n = 2; n < 5; n++) await log.append(big(n))
    expect(causes).toEqual(['timeout'])
    expect(log).toMatchObject({ healthy: true, spooled: 5, backlog: 5 })
    expect((await readFile(file, 'utf8')).trim().split('\n')).toHaveLength(5)
    const lines = await readLines(reader, 6)
    expect(kindsOf(lines)).toEqual([...Array.from({ length: 5 }, () => 'config'), 'gap'])
    expect(JSON.parse(lines[5] ?? '')).toMatchObject({
      detail: { cause: 'timeout', records: 5, since: new Date(logStartMs).toISOString() },
    })
    expect((await reportOf(`${lines.join('\n')}\n`)).bad).toBeUndefined()
    expect(log.spooled).toBe(0)
    expect((await stat(file)).size).toBe(0)
  })

  test('refuses when the spool is full, and goes on once the sink has taken all of it', async () => {
    await using reader = await openPipe()
    await using opened = await openTestLog(sink, {
      writeTimeoutMs: 200,
      spool: { file, maxBytes: 250_000 },
    })
    const { log } = opened
    await log.append(big(0))
    await log.append(big(1))
    await expect(log.append(big(2))).rejects.toMatchObject({ code: 'ERR_AUDIT_TIMEOUT' })
    await expect(log.append(beat(3))).rejects.toMatchObject({
      code: 'ERR_AUDIT_BACKLOG',
      message: 'The sink takes no records, and the spool is full',
    })
    expect(log).toMatchObject({ healthy: false, spooled: 2 })
    // The third was refused and is sealed: it is on record all the same.
    expect(kindsOf(await readLines(reader, 4))).toEqual(['config', 'config', 'config', 'gap'])
    await log.append(beat(4))
    expect(log).toMatchObject({ healthy: true, spooled: 0 })
  })

  test('loses nothing when the process is killed while the disk of the log is full', async () => {
    const killed = await new Promise((resolve) => {
      const child = execFile(process.execPath, ['--input-type=module', '--eval', killedScript()])
      child.once('exit', (_, signal) => resolve(signal))
    })
    expect(killed).toBe('SIGKILL')
    expect((await readFile(file, 'utf8')).trim().split('\n')).toHaveLength(2)
    await using opened = await openTestLog(sink, {
      instance: 'i2',
      spool: { file, maxBytes: 100_000 },
    })
    await opened.log.append(beat(3))
    await expect.poll(() => readFile(sink, 'utf8')).toContain('"type":"gap"')
    const text = await readFile(sink, 'utf8')
    expect(await reportOf(text)).toMatchObject({ records: 5, chains: 1 })
    const events = text
      .trim()
      .split('\n')
      .filter((line) => line.endsWith('"v":1}'))
      .map((line) => JSON.parse(line))
    const [gap] = events.filter(({ type }) => type === 'gap')
    expect(gap.detail).toMatchObject({ cause: 'restart', records: 2 })
    const others = events.filter(({ type }) => type !== 'gap')
    expect(others.map(({ detail }) => detail.n)).toEqual([0, 1, 2, 3])
    expect((await stat(file)).size).toBe(0)
  })
})

describe('openAuditLog() with a spool', () => {
  test('takes only what the log does not have, without a line that was torn', async () => {
    const chain = createChain()
    const lines = [0, 1, 2, 3].map((n) => chain.seal(beat(n), envelope))
    await writeFile(sink, `${lines.slice(0, 3).join('\n')}\n`)
    await writeFile(file, `${lines.slice(1).join('\n')}\n`)
    await appendFile(file, '{"detail":{"n":4')
    await using opened = await openTestLog(sink, { spool: { file, maxBytes: 100_000 } })
    await opened.log.append(beat(5))
    expect(await reportOf(await readFile(sink, 'utf8'))).toMatchObject({ records: 6, torn: [] })
    expect((await stat(file)).size).toBe(0)
  })

  test('rejects, and leaves both as they are, when the spool does not go on from the log', async () => {
    const chain = createChain()
    const lines = [0, 1, 2].map((n) => chain.seal(beat(n), envelope))
    await writeFile(sink, `${lines[0]}\n`)
    await writeFile(file, `${lines[2]}\n`)
    await expect(openTestLog(sink, { spool: { file, maxBytes: 100_000 } })).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
      message: expect.stringContaining('does not go on where the log ends'),
    })
    expect(await readFile(file, 'utf8')).toBe(`${lines[2]}\n`)
  })

  test('rejects a spool that is the log, under whatever name, and leaves it as it is', async () => {
    const chain = createChain()
    const text = `${chain.seal(beat(0), envelope)}\n`
    await writeFile(sink, text)
    await symlink(sink, file)
    await expect(openTestLog(sink, { spool: { file, maxBytes: 100_000 } })).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
      message: expect.stringContaining('is the audit log itself'),
    })
    expect(await readFile(sink, 'utf8')).toBe(text)
  })

  test('rejects a spool whose record of the same number is another than that of the log', async () => {
    await writeFile(sink, `${createChain().seal(beat(0), envelope)}\n`)
    const other = `${createChain().seal(beat(1), envelope)}\n`
    await writeFile(file, other)
    await expect(openTestLog(sink, { spool: { file, maxBytes: 100_000 } })).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
    })
    expect(await readFile(file, 'utf8')).toBe(other)
  })

  test.each([
    ['ends below that of the log', 1],
    ['goes on past that of the log', 4],
  ])('rejects a spool of another chain that %s, and leaves it as it is', async (_, count) => {
    const chain = createChain()
    const log = [0, 1, 2].map((n) => `${chain.seal(beat(n), envelope)}\n`)
    await writeFile(sink, log.join(''))
    const other = createChain()
    const lines = Array.from({ length: count }, (_line, n) => other.seal(beat(n + 10), envelope))
    const text = `${lines.join('\n')}\n`
    await writeFile(file, text)
    await expect(openTestLog(sink, { spool: { file, maxBytes: 100_000 } })).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
      message: expect.stringContaining('put the log back, or move the spool away'),
    })
    expect(await readFile(file, 'utf8')).toBe(text)
  })

  test('rejects a spool of two chains, whichever of them is that of the log', async () => {
    const chain = createChain()
    const lines = [0, 1, 2].map((n) => chain.seal(beat(n), envelope))
    await writeFile(sink, `${lines.slice(0, 2).join('\n')}\n`)
    const text = `${createChain().seal(beat(10), envelope)}\n${lines[2]}\n`
    await writeFile(file, text)
    await expect(openTestLog(sink, { spool: { file, maxBytes: 100_000 } })).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
    })
    expect(await readFile(file, 'utf8')).toBe(text)
  })

  test('empties a spool that the log has whole and went on from', async () => {
    const chain = createChain()
    const lines = [0, 1, 2, 3].map((n) => chain.seal(beat(n), envelope))
    await writeFile(sink, `${lines.join('\n')}\n`)
    await writeFile(file, `${lines.slice(0, 2).join('\n')}\n`)
    await using opened = await openTestLog(sink, { spool: { file, maxBytes: 100_000 } })
    await opened.log.append(beat(4))
    expect(await reportOf(await readFile(sink, 'utf8'))).toMatchObject({ records: 5, torn: [] })
    expect((await stat(file)).size).toBe(0)
  })

  test('rejects when the spool cannot be opened', async () => {
    const spool = { file: join(folder, 'absent', 'spool'), maxBytes: 100_000 }
    await expect(openTestLog(sink, { spool })).rejects.toMatchObject({
      code: 'ERR_AUDIT_SINK',
      message: expect.stringContaining('ENOENT'),
    })
  })
})

const sidecar = { instance: 'i1', version: '0.1.0', config_sha: 'c1' }
const envelope = { ts: new Date(logStartMs).toISOString(), mono_ns: '0', sidecar }
const beat = (n: number): AuditEvent => ({ type: 'heartbeat', detail: { n } })
const big = (n: number): AuditEvent => ({
  type: 'config',
  detail: { n, text: 'x'.repeat(100_000) },
})

async function openPipe() {
  execFileSync('mkfifo', [sink])
  return open(sink, constants.O_RDONLY | constants.O_NONBLOCK)
}

async function readLines(
  reader: Awaited<ReturnType<typeof openPipe>>,
  count: number,
): Promise<readonly string[]> {
  let text = ''
  while (text.split('\n').length <= count) {
    // An empty pipe gives EAGAIN.
    const piece = await reader.read(Buffer.alloc(65_536)).catch(() => delay(5))
    if (piece) text += piece.buffer.subarray(0, piece.bytesRead).toString('utf8')
  }
  return text.split('\n').slice(0, -1)
}

function kindsOf(lines: readonly string[]): readonly unknown[] {
  return lines.map((line) => (JSON.parse(line) as { readonly type: unknown }).type)
}

async function reportOf(text: string): Promise<ChainReport> {
  const report = await verifyChain(splitLines(only(Buffer.from(text))))
  expect(report.bad).toBeUndefined()
  return report
}

async function* only(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}

/** Its log may not grow any more after the first record; the spool may. */
function killedScript(): string {
  const module = new URL('../../audit/file-log.ts', import.meta.url).href
  return `
    import { execFileSync } from 'node:child_process'
    import { statSync } from 'node:fs'
    import { openAuditLog } from '${module}'
    process.on('SIGXFSZ', () => {})
    const log = await openAuditLog({
      sink: ${JSON.stringify(sink)}, instance: 'i1', version: '0.1.0', configSha: () => 'c1',
      maxBacklog: 100, writeTimeoutMs: 500, spool: { file: ${JSON.stringify(file)}, maxBytes: 100_000 },
      clock: { now: () => Date.now(), monotonic: () => performance.now() },
    })
    const beat = (n) => ({ type: 'heartbeat', detail: { n, text: 'x'.repeat(n === 0 ? 3000 : 10) } })
    await log.append(beat(0))
    const size = statSync(${JSON.stringify(sink)}).size
    execFileSync('prlimit', ['--pid', String(process.pid), '--fsize=' + (size + 20) + ':unlimited'])
    await log.append(beat(1))
    await log.append(beat(2))
    process.kill(process.pid, 'SIGKILL')`
}
