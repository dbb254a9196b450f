import { createReadStream } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { AuditEvent } from '../../audit/record.ts'
import { readVerified } from '../../audit/read-file.ts'
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
import { names } from '../kit/tokens.ts'

const heartbeatMs = 60_000
let folder = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
})
afterEach(() => rm(folder, { recursive: true }))

describe('accountOf()', () => {
  test('tells what was cut and what tried again when a task was revoked on two sidecars', async () => {
    const a = await logOf('a', [
      start,
      decisionEvent({ id: 'd1' }),
      decisionEvent({ id: 'd2' }),
      5,
      revocationEvent({ exchanges_cut: 1, recorded_epoch: 1 }),
      revocationEvent({ exchanges_cut: 1, recorded_epoch: 1 }),
      outcomeEvent('d1', { rid: 'rev-1', how: 'reset', afterMs: 2, lastUpMs: -900 }),
      outcomeEvent('d2', {
        rid: 'rev-1',
        how: 'reset',
        afterMs: 4,
        lastUpMs: -30.5,
        lastDownMs: -2,
      }),
      10,
      refused('d3'),
      refused('d4', 1),
      refused('d5', 2),
      decisionEvent({ id: 'd6', txn: 'T-2' }),
      outcomeEvent('d6'),
    ])
    const b = await logOf('b', [start, 8, revocationEvent(), stop])
    expect(await reportOf([a, b])).toEqual({
      rid: 'rev-1',
      op: 'revoke',
      subject: 'task:T-1',
      reason: 'wrong customer',
      by: 'ops',
      recorded_at: '2026-11-24T12:00:00.000Z',
      recorded_epoch: 1,
      lifted: [],
      verdict: 'clean',
      sidecars: [
        {
          file: a,
          instance: 'a',
          at: at(5),
          epoch: '1:a',
          after_ms: 5,
          exchanges_cut: 2,
          until: at(15),
        },
        {
          file: b,
          instance: 'b',
          at: at(8),
          epoch: '1:a',
          after_ms: 8,
          exchanges_cut: 0,
          until: at(8),
        },
      ],
      cut: [{ how: 'reset', count: 2, after_ms: { p50: 2, max: 4 } }],
      bytes_up: 20,
      bytes_down: 200,
      last_byte: { up_ms: -30.5, down_ms: -2 },
      first_refusal: { file: a, instance: 'a', decision_id: 'd3', after_ms: 10 },
      attempts: {
        decisions: 1,
        repeated: 0,
        automatic_retries: 2,
        by_retry_count: { 0: 1, 1: 1, 2: 1 },
      },
      acted_count: 0,
      acted: [],
      gaps: [],
    })
  })

  test.each([
    ['task:T-1'],
    [`agent:${names.agent}`],
    ['agent-prefix:spiffe://example.org/agent'],
    ['trust-domain:example.org'],
    [`grant:${names.approver}#grant-T-1`],
    [`approver:${names.approver}`],
    ['upstream:api'],
    ['tool:api/lookup'],
    ['all'],
  ])('names the record when something that %s covers was allowed after it', async (subject) => {
    const allowed = decisionEvent({ id: 'd1', tool: 'lookup' })
    const file = await logOf('a', [start, revocationEvent({ subject }), 1, allowed])
    const report = await reportOf([file])
    expect(report?.verdict).toBe('acted')
    expect(report?.acted).toMatchObject([{ decision_id: 'd1', seq: 3, txn: 'T-1', file }])
  })

  test.each([['task:root'], ['agent:spiffe://other.org/planner'], ['trust-domain:other.org']])(
    'names the record when something below what %s covers was allowed after it',
    async (subject) => {
      const ancestors = [{ txn: 'root', spiffe_id: 'spiffe://other.org/planner' }]
      const allowed = decisionEvent({ id: 'd1', ancestors })
      const file = await logOf('a', [start, revocationEvent({ subject }), 1, allowed])
      expect(await reportOf([file])).toMatchObject({
        verdict: 'acted',
        acted: [{ decision_id: 'd1', txn: 'T-1' }],
      })
    },
  )

  test.each([
    ['task:T-2'],
    ['agent:spiffe://example.org/agent/b'],
    ['agent-prefix:spiffe://example.org/age'],
    [`grant:${names.approver}#grant-T-2`],
    ['upstream:other'],
    ['tool:api/other'],
  ])('counts nothing when what was allowed is not covered by %s', async (subject) => {
    const allowed = decisionEvent({ id: 'd1', tool: 'lookup' })
    const events = [start, revocationEvent({ subject }), allowed, outcomeEvent('d1')]
    expect(await reportOf([await logOf('a', events)])).toMatchObject({
      verdict: 'clean',
      acted_count: 0,
      attempts: { decisions: 0 },
    })
  })

  test('counts nothing that was allowed before, or after the record had ended', async () => {
    const file = await logOf('a', [
      decisionEvent({ id: 'd1' }),
      outcomeEvent('d1'),
      revocationEvent({ op: 'pause', expires_at: at(1000) }),
      1000,
      decisionEvent({ id: 'd2' }),
    ])
    expect(await reportOf([file])).toMatchObject({ verdict: 'clean', acted_count: 0, gaps: [] })
  })

  test('says who lifted it and counts nothing after it when an operator lifted the record', async () => {
    const a = await logOf('a', [
      start,
      revocationEvent({ op: 'pause' }),
      10,
      refused('d1'),
      liftEvent(),
      3 * heartbeatMs,
      decisionEvent({ id: 'd2' }),
      refused('d3'),
    ])
    // It began after the lift: the store told it of both at once.
    const b = await logOf('b', [start, liftEvent(), decisionEvent({ id: 'd4' })], {
      startMs: logStartMs + 500,
    })
    expect(await reportOf([b, a])).toMatchObject({
      verdict: 'clean',
      acted_count: 0,
      attempts: { decisions: 1 },
      gaps: [],
      lifted: [
        { file: a, instance: 'a', at: at(10), rid: 'lift-1', by: 'oncall', reason: 'looked at it' },
        { file: b, instance: 'b', at: at(500) },
      ],
    })
  })

  test('names what was allowed when the lift came after it, or names another record', async () => {
    const before = await logOf('a', [revocationEvent(), decisionEvent({ id: 'd1' }), liftEvent()])
    expect(await reportOf([before])).toMatchObject({ verdict: 'acted', acted_count: 1 })
    const other = liftEvent({ lifts: ['rev-2'] })
    const elsewhere = await logOf('b', [revocationEvent(), other, decisionEvent({ id: 'd1' })])
    expect(await reportOf([elsewhere])).toMatchObject({ verdict: 'acted', lifted: [] })
  })

  test.each([
    ['expired', revocationEvent({ expires_at: at(3 * heartbeatMs) }), [3 * heartbeatMs + 1, beat]],
    ['was lifted', revocationEvent(), [3 * heartbeatMs, liftEvent()]],
  ] as const)('names the silence up to the end when the record %s', async (_, record, rest) => {
    expect(await reportOf([await logOf('a', [record, ...rest])])).toMatchObject({
      verdict: 'open',
      gaps: [{ kind: 'silence', detail: 'sidecar a: no heartbeat for 180 s' }],
    })
  })

  test('counts a new decision as repeated when the same operation was refused a moment before', async () => {
    const file = await logOf('a', [
      revocationEvent(),
      refused('d1'),
      2_000,
      refused('d2'),
      2_001,
      refused('d3'),
      refused('d4', 1),
      decisionEvent({ id: 'd5', effect: 'deny', rid: 'rev-1', tool: 'lookup' }),
    ])
    expect(await reportOf([file])).toMatchObject({
      attempts: { decisions: 4, repeated: 1, automatic_retries: 1 },
    })
  })

  test.each([
    ['credential:https://chaperone.example.org#jti-1'],
    [`approver:${names.approver}#alice`],
  ])('leaves the account of %s open: decisions do not name it', async (subject) => {
    const file = await logOf('a', [
      start,
      revocationEvent({ subject }),
      1,
      decisionEvent({ id: 'd1' }),
    ])
    expect(await reportOf([file])).toMatchObject({
      verdict: 'open',
      gaps: expect.arrayContaining([expect.objectContaining({ kind: 'untold', open: true })]),
    })
  })

  test('leaves the account open when a byte was handed on after it', async () => {
    const cut = { rid: 'rev-1', how: 'reset', afterMs: 2, lastUpMs: -5, lastDownMs: 0.5 } as const
    const file = await logOf('a', [
      decisionEvent({ id: 'd1' }),
      revocationEvent({ exchanges_cut: 1 }),
      outcomeEvent('d1', cut),
    ])
    expect(await reportOf([file])).toMatchObject({
      verdict: 'open',
      last_byte: { up_ms: -5, down_ms: 0.5 },
      gaps: [{ kind: 'late-byte', open: true }],
    })
  })

  test('names the records that were in the spool only', async () => {
    const detail = { cause: 'ENOSPC', since: at(0), records: 3 }
    const file = await logOf('a', [revocationEvent(), { type: 'gap', detail }])
    expect(await reportOf([file])).toMatchObject({
      verdict: 'clean',
      gaps: [{ kind: 'sink', open: false, detail: expect.stringContaining('3 records') }],
    })
  })

  test('names the sidecar when it acknowledged and no file is of it', async () => {
    const file = await logOf('a', [revocationEvent()])
    expect(await reportOf([file], ['a', 'z', 'z'])).toMatchObject({
      verdict: 'open',
      gaps: [
        { kind: 'no-file', detail: 'sidecar z: acknowledged it, and no file has its records' },
      ],
    })
  })

  test('names the exchange when it outlives the revocation that covers it', async () => {
    const file = await logOf('a', [
      decisionEvent({ id: 'd1' }),
      decisionEvent({ id: 'd2' }),
      revocationEvent(),
      1_001,
      outcomeEvent('d1'),
    ])
    const report = await reportOf([file])
    expect(report?.verdict).toBe('open')
    expect(report?.gaps.map(({ kind, detail }) => [kind, detail])).toEqual([
      ['outlived', 'sidecar a: decision d1 was allowed before and not cut'],
      ['outlived', 'sidecar a: decision d2 was allowed before and not cut'],
    ])
  })

  test('names the number when cut exchanges have no outcome', async () => {
    const report = await reportOf([await logOf('a', [revocationEvent({ exchanges_cut: 2 })])])
    expect(report).toMatchObject({ verdict: 'open', gaps: [{ kind: 'missing-outcome' }] })
    expect(report?.gaps[0]?.detail).toContain('2 cut exchanges have no outcome')
  })

  test('names a silence when heartbeats are missing for longer than twice their interval', async () => {
    const beating = [revocationEvent(), 2 * heartbeatMs, beat, 2 * heartbeatMs, beat, stop]
    expect(await reportOf([await logOf('a', beating)])).toMatchObject({
      verdict: 'clean',
      gaps: [],
    })
    const silent = [revocationEvent(), 2 * heartbeatMs + 1, beat, stop]
    expect(await reportOf([await logOf('b', silent)])).toMatchObject({
      verdict: 'open',
      gaps: [{ kind: 'silence', detail: 'sidecar b: no heartbeat for 120 s' }],
    })
    const silentAtTheEnd = [revocationEvent(), 3 * heartbeatMs, refused('d1')]
    expect(await reportOf([await logOf('c', silentAtTheEnd)])).toMatchObject({
      verdict: 'open',
      gaps: [{ kind: 'silence', detail: 'sidecar c: no heartbeat for 180 s' }],
    })
  })

  test('names a restart, and asks the new process for the record too', async () => {
    const file = await logOf('a', [revocationEvent(), 10])
    await logOf('a2', [start, revocationEvent(), stop], { file, startMs: logStartMs + 20 })
    expect(await reportOf([file])).toMatchObject({
      verdict: 'clean',
      sidecars: [{ instance: 'a' }, { instance: 'a2', after_ms: 20 }],
      gaps: [
        {
          kind: 'restart',
          open: false,
          detail: `sidecar a2: began at ${at(20)} and the one before had not stopped`,
        },
      ],
    })
    await logOf('a3', [start], { file, startMs: logStartMs + 30 })
    const report = await reportOf([file])
    expect(report?.verdict).toBe('open')
    expect(report?.gaps).toContainEqual(expect.objectContaining({ kind: 'not-in-force' }))
  })

  test.each([
    ['ended with a stop before it', [start, stop], 'clean'],
    ['just ends before it', [start, beat], 'open'],
  ] as const)('judges a file that %s', async (_, events, verdict) => {
    const enforcing = await logOf('a', [revocationEvent({ recorded_at: at(50) }), stop], {
      startMs: logStartMs + 50,
    })
    const other = await logOf('b', events)
    expect((await reportOf([enforcing, other]))?.verdict).toBe(verdict)
  })

  test('names the line when the chain breaks, and takes nothing from there on', async () => {
    const file = await logOf('a', [start, revocationEvent(), refused('d1'), refused('d2')])
    const text = await readFile(file, 'utf8')
    await writeFile(file, text.replace('"decision_id":"d1"', '"decision_id":"d9"'))
    expect(await reportOf([file])).toMatchObject({
      verdict: 'open',
      attempts: { decisions: 0 },
      gaps: [{ kind: 'chain', detail: 'line 3: hash mismatch', open: true }],
    })
  })

  test('knows nothing when no file has the revocation', async () => {
    const other = revocationEvent({ rid: 'rev-2' })
    expect(await reportOf([await logOf('a', [start, other])])).toBeUndefined()
  })
})

const start: AuditEvent = { type: 'start', detail: {} }
const stop: AuditEvent = { type: 'stop', detail: {} }
const beat: AuditEvent = { type: 'heartbeat', detail: {} }

function refused(id: string, retries?: number): AuditEvent {
  const facts = { id, effect: 'deny' as const, rid: 'rev-1' }
  return decisionEvent({ ...facts, ...(retries !== undefined && { retries }) })
}

function at(ms: number): string {
  return new Date(logStartMs + ms).toISOString()
}

/** Numbers let so many milliseconds pass. */
async function logOf(
  instance: string,
  events: readonly (AuditEvent | number)[],
  options: { readonly file?: string; readonly startMs?: number } = {},
): Promise<string> {
  const path = options.file ?? join(folder, `${instance}.ndjson`)
  const clock = manualClock(options.startMs ?? logStartMs)
  await using opened = await openTestLog(path, { instance, clock })
  for (const event of events) {
    if (typeof event === 'number') clock.advance(event)
    else await opened.log.append(event)
  }
  return path
}

async function reportOf(
  files: readonly string[],
  acknowledged: readonly string[] = [],
): Promise<RevocationReport | undefined> {
  const account = accountOf('rev-1', { heartbeatMs })
  for (const file of files) {
    const reading = account.file(file)
    const chain = await readVerified(createReadStream(file), {
      use: ({ record }) => (record ? reading.add(record) : reading.unread()),
    })
    reading.end(chain)
  }
  return account.report({ acknowledged })
}
