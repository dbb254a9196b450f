import { createReadStream, readFileSync } from 'node:fs'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turnEnd } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { splitLines, verifyChain } from '../../audit/chain.ts'
import { openAuditLog, type AuditLogOptions } from '../../audit/file-log.ts'
import type { AuditEvent } from '../../audit/record.ts'
import type { Clock } from '../../policy/types.ts'
import { manualClock } from '../kit/manual-clock.ts'

const nowMs = Date.UTC(2026, 10, 24, 12)
let folder = ''
let path = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
  path = join(folder, 'audit.ndjson')
})
afterEach(() => rm(folder, { recursive: true }))

describe('append()', () => {
  test('has them in the file by the end of the turn when the sink is a file', async () => {
    await using log = await openAuditLog(options())
    const appended = Promise.all([log.append(beat(0)), log.append(beat(1))])
    expect(log.backlog).toBe(2)
    await turnEnd()
    expect(log.backlog).toBe(0)
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(3)
    await appended
  })

  test('leaves the writing to a thread when the disk was slow, and takes it back later', async () => {
    const clock = manualClock(nowMs)
    let writeMs = 6
    const slow: Clock = {
      now: () => clock.now(),
      // Asked before and after each write in place: it seems to take this long.
      monotonic() {
        clock.advance(writeMs)
        return clock.monotonic()
      },
    }
    await using log = await openAuditLog(options(slow))
    await log.append(beat(0))
    writeMs = 0

    // From here to the end of the turn no completion of a thread is taken in.
    await stat(path)
    const byThread = log.append(beat(1))
    await turnEnd()
    expect(log.backlog).toBe(1)
    await byThread

    clock.advance(60_000)
    await stat(path)
    const inPlace = log.append(beat(2))
    await turnEnd()
    expect(log.backlog).toBe(0)
    await inPlace
    const report = await verifyChain(splitLines(createReadStream(path)))
    expect(report).toEqual({ ...report, records: 3, torn: [] })
    expect(report.bad).toBeUndefined()
  })
})

const beat = (n: number): AuditEvent => ({ type: 'heartbeat', detail: { n } })

function options(clock: Clock = manualClock(nowMs)): AuditLogOptions {
  return {
    sink: path,
    instance: 'i1',
    version: '0.1.0',
    configSha: () => 'c1',
    maxBacklog: 10_000,
    writeTimeoutMs: 5000,
    clock,
  }
}
