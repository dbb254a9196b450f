import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import canonicalize from 'canonicalize'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ocsfExport } from '../../audit/ocsf.ts'
import { readVerified } from '../../audit/read-file.ts'
import type { AuditEvent } from '../../audit/record.ts'
import {
  decisionEvent,
  liftEvent,
  logStartMs,
  openTestLog,
  outcomeEvent,
  revocationEvent,
} from '../kit/audit-records.ts'
import { names } from '../kit/tokens.ts'

// From the schema of OCSF 1.9.0.
const required = [
  'activity_id',
  'category_uid',
  'class_uid',
  'metadata',
  'severity_id',
  'time',
  'type_uid',
]
const requiredOf: Readonly<Record<number, readonly string[]>> = {
  6003: ['actor', 'api', 'src_endpoint'],
  3004: ['entity'],
}
const categoryOf: Readonly<Record<number, number>> = { 6003: 6, 3004: 3 }
const activitiesOf: Readonly<Record<number, readonly number[]>> = {
  6003: [0, 1, 2, 3, 4, 99],
  3004: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99],
}
const enums: Readonly<Record<string, readonly number[]>> = {
  severity_id: [0, 1, 2, 3, 4, 5, 6, 99],
  status_id: [0, 1, 2, 99],
  action_id: [0, 1, 2],
  disposition_id: [...Array(28).keys(), 99],
}
/** Attributes that a class has only by a profile. */
const profileOf: Readonly<Record<string, string>> = {
  '3004 actor': 'host',
  action_id: 'security_control',
  disposition_id: 'security_control',
  is_alert: 'security_control',
  policy: 'security_control',
  ai_agent: 'ai_operation',
  delegation: 'ai_operation',
  attestation_list: 'record_integrity',
}

type Json = Readonly<Record<string, unknown>>

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
})
afterEach(() => rm(folder, { recursive: true }))

const start: AuditEvent = { type: 'start', detail: {} }
const unidentified = { ...decisionEvent({ id: 'd9', effect: 'deny' }), agent: null, task: null }
const cut = { rid: 'rev-1', how: 'reset', afterMs: 2 } as const
const everything: readonly AuditEvent[] = [
  start,
  decisionEvent({ id: 'd1' }),
  { ...decisionEvent({ id: 'd2', tool: 'lookup' }), upstream: null },
  revocationEvent({ exchanges_cut: 1 }),
  outcomeEvent('d1', cut),
  outcomeEvent('d2'),
  { ...outcomeEvent('d3'), end: 'client-gone', status: null },
  decisionEvent({ id: 'd4', effect: 'deny', rid: 'rev-1', retries: 2 }),
  decisionEvent({ id: 'd5', effect: 'step-up' }),
  unidentified,
  { ...outcomeEvent('d9'), end: 'denied', error: 'identity-required' },
  revocationEvent({ rid: 'rev-2', op: 'pause', subject: `agent:${names.agent}` }),
  revocationEvent({ rid: 'rev-3', op: 'quarantine', subject: 'all' }),
  liftEvent({ lifts: ['rev-1', 'rev-2'] }),
  { type: 'heartbeat', detail: {} },
  { type: 'unread', detail: { malformed: 2 } },
]

describe('ocsfExport()', () => {
  test('gives every event the required attributes and values of its class', async () => {
    const events = await exported(everything)
    expect(events).toHaveLength(14)
    for (const event of events) {
      const { class_uid: cls, activity_id: activity, type_uid: type } = event
      if (typeof cls !== 'number' || typeof activity !== 'number') throw new TypeError('no class')
      const present = [...required, ...(requiredOf[cls] ?? ['unknown class'])]
      expect(present.filter((name) => event[name] === undefined)).toEqual([])
      expect(event['category_uid']).toBe(categoryOf[cls])
      expect(activitiesOf[cls]).toContain(activity)
      expect(type).toBe(cls * 100 + activity)
      const foreign = Object.entries(enums).filter(
        ([name, values]) => name in event && !values.includes(Number(event[name])),
      )
      expect(foreign).toEqual([])
      expect(Number.isInteger(event['time'])).toBe(true)
      const { metadata } = event
      expect(metadata).toMatchObject({ version: '1.9.0', product: { name: 'Chaperone' } })
      const used = Object.keys(event).flatMap(
        (name) => profileOf[`${cls} ${name}`] ?? profileOf[name] ?? [],
      )
      expect(Object(metadata).profiles).toEqual(expect.arrayContaining(used))
      expect(JSON.stringify(event)).not.toContain('null')
    }
    const uids = events.map(({ metadata }) => Object(metadata).uid)
    expect(new Set(uids).size).toBe(events.length)
  })

  test('says who asked for what under which grant, and what became of it', async () => {
    const [decision, mcp, , outcome] = await exported(everything)
    expect(decision).toMatchObject({
      type_uid: 600302,
      activity_name: 'Read',
      status: 'Success',
      disposition: 'Allowed',
      actor: { user: { uid: names.agent, type_id: 4 } },
      ai_agent: { uid: names.agent, instance_uid: 'T-1' },
      delegation: { uid: `${names.approver}#grant-T-1`, issuer_uid: names.approver },
      api: { operation: 'GET /things', service: { name: 'api' }, request: { uid: 'd1' } },
      src_endpoint: { instance_uid: 'i1' },
      metadata: { event_code: 'decision', sequence: 2, correlation_uid: 'd1' },
    })
    expect(mcp).toMatchObject({
      type_uid: 600399,
      activity_name: 'tools/call',
      type_name: 'API Activity: Other',
      api: { operation: 'tools/call lookup' },
    })
    expect(outcome).toMatchObject({
      type_uid: 600302,
      status: 'Failure',
      status_code: 'cut',
      status_detail: 'task-terminated',
      disposition: 'Access Revoked',
      http_response: { code: 200 },
      duration: 1,
      unmapped: { rid: 'rev-1', cut_after_ms: 2 },
    })
  })

  test.each([
    ['revoke', 300409, 'Disable'],
    ['quarantine', 300411, 'Deactivate'],
    ['pause', 300412, 'Suspend'],
  ])('makes a %s an entity that is changed', async (op, typeUid, activity) => {
    const [event] = await exported([revocationEvent({ op })])
    expect(event).toMatchObject({
      type_uid: typeUid,
      activity_name: activity,
      entity: { type: 'task', uid: 'task:T-1' },
      comment: 'wrong customer',
      actor: { user: { name: 'ops' } },
    })
  })

  test('gives what a log may say, and no class has a value for, as another activity', async () => {
    const event = revocationEvent({})
    const odd = [
      { ...event, op: 'constructor' },
      { ...event, op: 'toString' },
    ] as unknown[]
    const events = await exported(odd as AuditEvent[])
    expect(events.map(({ activity_id: id, activity_name: name }) => [id, name])).toEqual([
      [99, 'constructor'],
      [99, 'toString'],
    ])
  })

  test('gives one event for each revocation that a lift ends', async () => {
    const events = await exported([liftEvent({ lifts: ['rev-1', 'rev-2'] })])
    expect(events.map(({ type_uid, entity }) => [type_uid, Object(entity).uid])).toEqual([
      [300413, 'rev-1'],
      [300413, 'rev-2'],
    ])
  })

  test('attests to each event and to the one before, over its canonical form', async () => {
    const events = await exported(everything)
    let before: Json | undefined
    for (const event of events) {
      const [{ fingerprint, ...links }, ...more] = Object(event['attestation_list'])
      expect(more).toEqual([])
      const text = canonicalize({ ...event, attestation_list: [links] }) ?? ''
      expect(fingerprint).toMatchObject({
        algorithm_id: 3,
        serialization_id: 2,
        value: createHash('sha256').update(text).digest('hex'),
      })
      expect(links.prev_event?.fingerprint).toEqual(before)
      expect(links.chain_uid).toMatch(/^[0-9a-f]{64}$/)
      before = fingerprint
    }
  })
})

async function exported(events: readonly AuditEvent[]): Promise<readonly Json[]> {
  const path = join(folder, `${crypto.randomUUID()}.ndjson`)
  {
    await using opened = await openTestLog(path)
    for (const event of events) await opened.log.append(event)
  }
  const out: Json[] = []
  const exporting = ocsfExport()
  const chain = await readVerified(createReadStream(path), {
    use: ({ record }) => {
      if (!record) throw new Error('no record of this version')
      for (const text of exporting.add(record)) out.push(JSON.parse(text))
    },
  })
  expect(chain).toMatchObject({ records: events.length, first: new Date(logStartMs).toISOString() })
  return out
}
