import { createReadStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { readVerified } from '../../audit/read-file.ts'
import type { AuditEvent } from '../../audit/record.ts'
import { accountOf } from '../../audit/report.ts'
import type { RevocationReport } from '../../audit/report-summary.ts'
import {
  decisionEvent,
  liftEvent,
  logStartMs,
  openTestLog,
  outcomeEvent,
  revocationEvent,
} from '../kit/audit-records.ts'
import { manualClock } from '../kit/manual-clock.ts'

let folder = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
})
afterEach(() => rm(folder, { recursive: true }))

const heard = `bare-${'5'.repeat(32)}`
const first = `${heard}-1764072000000000-7`
const second = `${heard}-1764072060000000-9`
const start: AuditEvent = { type: 'start', detail: {} }

/** What a sidecar puts on record of one message: it cuts, the store makes it a record, the agent tries again. */
function said(rid: string, epoch: number): readonly (AuditEvent | number)[] {
  const id = `live-${epoch}`
  const recorded_at = new Date(logStartMs + epoch).toISOString()
  return [
    decisionEvent({ id }),
    revocationEvent({ rid: heard, by: 'channel', exchanges_cut: 1 }),
    outcomeEvent(id, { rid: heard, how: 'reset', afterMs: epoch }),
    1,
    revocationEvent({ rid, by: 'bare', recorded_at, recorded_epoch: epoch }),
    1,
    decisionEvent({ id: `next-${epoch}`, effect: 'deny', rid }),
  ]
}

describe('accountOf() a bare message', () => {
  test.each([
    ['the record', first],
    ['the message', heard],
  ])('is one account of the message and of its record, by the id of %s', async (_, asked) => {
    const file = await logOf([start, 5, ...said(first, 7)])
    expect(await reportOf(file, asked)).toMatchObject({
      rid: first,
      by: 'bare',
      recorded_epoch: 7,
      recorded_at: new Date(logStartMs + 7).toISOString(),
      verdict: 'clean',
      // In force before the store had it.
      sidecars: [{ after_ms: -2, exchanges_cut: 1 }],
      cut: [{ how: 'reset', count: 1, after_ms: { max: 7 } }],
      attempts: { decisions: 1 },
      gaps: [],
    })
  })

  test('ends with the lift of its record, and leaves out when it was said again', async () => {
    const lifted = liftEvent({ lifts: [first] })
    const between = decisionEvent({ id: 'between' })
    const log = [start, ...said(first, 7), lifted, between, 2_000, ...said(second, 9)]
    const file = await logOf([...log.slice(0, -1), outcomeEvent('between'), ...log.slice(-1)])
    for (const asked of [first, heard]) {
      expect(await reportOf(file, asked)).toMatchObject({
        rid: first,
        verdict: 'clean',
        lifted: [{ rid: 'lift-1' }],
        cut: [{ count: 1, after_ms: { max: 7 } }],
        attempts: { decisions: 1 },
      })
    }
  })

  test('leaves out when it was said before, and lifted', async () => {
    const lifted = liftEvent({ lifts: [first] })
    const file = await logOf([start, ...said(first, 7), lifted, 2_000, ...said(second, 9)])
    expect(await reportOf(file, second)).toMatchObject({
      rid: second,
      recorded_epoch: 9,
      verdict: 'clean',
      lifted: [],
      sidecars: [{ exchanges_cut: 1 }],
      cut: [{ count: 1, after_ms: { max: 9 } }],
      attempts: { decisions: 1 },
      gaps: [],
    })
  })

  test('is what the message did while no record of it is known', async () => {
    const file = await logOf([start, ...said(first, 7).slice(0, 3)])
    const report = await reportOf(file, heard)
    expect(report).toMatchObject({ rid: heard, by: 'channel', cut: [{ count: 1 }] })
    expect(report).not.toHaveProperty('recorded_epoch')
  })

  test('never takes the record of another message for it', async () => {
    const other = `bare-${'6'.repeat(32)}-1764072000000000-7`
    const file = await logOf([start, ...said(first, 7)])
    expect(await reportOf(file, other)).toBeUndefined()
  })
})

async function logOf(events: readonly (AuditEvent | number)[]): Promise<string> {
  const path = join(folder, 'audit.ndjson')
  const clock = manualClock(logStartMs)
  await using opened = await openTestLog(path, { clock })
  for (const event of events) {
    if (typeof event === 'number') clock.advance(event)
    else await opened.log.append(event)
  }
  return path
}

async function reportOf(file: string, rid: string): Promise<RevocationReport | undefined> {
  const account = accountOf(rid, { heartbeatMs: 60_000 })
  const reading = account.file(file)
  const chain = await readVerified(createReadStream(file), {
    use: ({ record }) => (record ? reading.add(record) : reading.unread()),
  })
  reading.end(chain)
  return account.report()
}
