import { describe, expect, test } from 'vitest'
import type { Lift } from '../../policy/lift.ts'
import type { Revocation } from '../../policy/types.ts'
import type { Assertion } from '../../revocation/assertion.ts'
import { genesis } from '../../revocation/link-hash.ts'
import { Replica } from '../../revocation/replica.ts'
import { provisional } from '../../revocation/revocation-record.ts'
import type { Missing } from '../../revocation/unproven.ts'

const subject = 'task:T-1'
const said = { reason: 'runaway', by: 'channel', nowMs: 1 } as const

function record(rid: string, members: Partial<Revocation> = {}): Revocation {
  const common = { reason: '', by: 'bare', atMs: 1, expiresAtMs: 0, epoch: 1 }
  return { rid, op: 'revoke', subject, ...common, ...members }
}

function lift(rid: string, ...lifts: readonly string[]): Lift {
  return { rid, lifts, by: 'oncall', reason: '', atMs: 1, compact: rid }
}

/** The only assertion that waits. */
function waiting(replica: Replica): Assertion {
  const [first, ...more] = replica.assertions(10)
  if (!first || more.length > 0) throw new Error('expected one assertion')
  return first
}

const find = (replica: Replica): string | undefined => replica.find([subject])?.by

describe('Replica.absorbed()', () => {
  test('keeps the assertion until the record that stands for it is held', () => {
    const replica = new Replica()
    replica.hear(provisional(subject, said), 0)
    replica.absorbed(waiting(replica), 'bare-1')
    expect(find(replica)).toBe('channel')
    replica.hear(record('bare-1', { subject: 'task:T-2' }), 0)
    replica.hear(record('bare-1', { expiresAtMs: 9_000 }), 0)
    // Neither stands for it: another subject, and one that ends by itself.
    replica.lift(lift('l1', 'bare-1'))
    expect(find(replica)).toBe('channel')
  })

  test('ends the assertion with the lift of its record', () => {
    const replica = new Replica()
    replica.hear(provisional(subject, said), 0)
    replica.absorbed(waiting(replica), 'bare-1')
    replica.hear(record('bare-1'), 0)
    expect([find(replica), replica.size]).toEqual(['bare', 1])
    replica.lift(lift('l1', 'bare-1'))
    expect([find(replica), replica.size]).toEqual([undefined, 0])
  })

  test('says nothing about an assertion that was heard after the question', () => {
    const replica = new Replica()
    replica.hear(provisional(subject, said), 0)
    const asked = waiting(replica)
    replica.hear(provisional(subject, said), 0)
    replica.absorbed(asked, 'bare-1')
    replica.hear(record('bare-1'), 0)
    replica.lift(lift('l1', 'bare-1'))
    expect(find(replica)).toBe('channel')
  })

  test('takes no record that was lifted before the assertion was heard', () => {
    const replica = new Replica()
    replica.hear(record('bare-1'), 0)
    replica.lift(lift('l1', 'bare-1'))
    replica.hear(provisional(subject, said), 0)
    replica.absorbed(waiting(replica), 'bare-1')
    expect(find(replica)).toBe('channel')
    expect(waiting(replica).rid).toBeUndefined()
  })
})

describe('Replica.hear()', () => {
  test('announces a record once, and not one that is lifted already', () => {
    const replica = new Replica()
    expect(replica.hear(record('r1'), 0)).toHaveLength(1)
    expect(replica.hear(record('r1'), 0)).toEqual([])
    replica.lift(lift('l1', 'r2'))
    expect(replica.hear(record('r2'), 0)).toEqual([])
    expect(replica.find([subject])?.rid).toBe('r1')
  })

  test('takes no record whose time is over', () => {
    const replica = new Replica()
    expect(replica.hear(record('r1', { expiresAtMs: 100 }), 100)).toEqual([])
  })
})

describe('Replica.lift()', () => {
  test('ends the durable record of the rid and no assertion', () => {
    const replica = new Replica()
    const bare = provisional(subject, said)
    replica.hear(bare, 0)
    replica.lift(lift('l1', bare.rid))
    expect(find(replica)).toBe('channel')
  })

  test('stays until the record that it names has expired', () => {
    const replica = new Replica()
    replica.hear(record('r1', { expiresAtMs: 1_000 }), 0)
    replica.lift(lift('l1', 'r1'))
    replica.expire(999)
    expect(replica.snapshot().lifts).toHaveLength(1)
    replica.expire(1_000)
    expect(replica.snapshot()).toEqual({ records: [], lifts: [] })
  })
})

describe('Replica.prove()', () => {
  test('keeps and names what a scan did not show, lifts too', () => {
    const replica = new Replica()
    replica.hear(record('r1'), 0)
    replica.hear(record('r2'), 0)
    replica.lift(lift('l1', 'r2'))
    replica.mistrust()
    const head = { n: 2, h: 'b' }
    const scan = replica.beginScan(head)
    replica.readRecords(scan, { records: [record('r2')], serverMs: 0 })
    expect(replica.prove(scan, { position: head, sentAtMs: 1 })).toBe(true)
    expect([...replica.missing]).toEqual([
      { kind: 'lift', lift: lift('l1', 'r2') },
      { kind: 'record', record: record('r1') },
    ])
    expect(replica.find([subject])?.rid).toBe('r1')
  })

  test('refuses a head that is behind what a message told', () => {
    const replica = new Replica()
    replica.mistrust()
    const scan = replica.beginScan(genesis)
    replica.prove(scan, { position: genesis, sentAtMs: 1 })
    replica.hear(record('r1', { epoch: 7 }), 0)
    const follow = replica.beginFollow()
    if (!follow) throw new Error('expected to follow')
    expect(replica.prove(follow, { position: { n: 6, h: 'a' }, sentAtMs: 2 })).toBe(false)
    expect(replica.proof?.sentAtMs).toBe(1)
  })

  test('refuses a head as far as what was heard, when the log did not hold that', () => {
    const replica = new Replica()
    replica.mistrust()
    replica.prove(replica.beginScan(genesis), { position: genesis, sentAtMs: 1 })
    replica.hear(record('r1'), 0)
    const follow = replica.beginFollow()
    if (!follow) throw new Error('expected to follow')
    replica.readRecords(follow, { records: [record('r2')], serverMs: 0 })
    expect(replica.prove(follow, { position: { n: 1, h: 'a' }, sentAtMs: 2 })).toBe(false)
    replica.readRecords(follow, { records: [record('r1')], serverMs: 0 })
    expect(replica.prove(follow, { position: { n: 1, h: 'a' }, sentAtMs: 2 })).toBe(true)
  })

  test('gives back what a scan read of a store that has no head', () => {
    const replica = new Replica()
    replica.mistrust()
    const scan = replica.beginScan(genesis)
    replica.readRecords(scan, { records: [record('r1')], serverMs: 0 })
    // Any history leads on from the empty log.
    expect(replica.prove(scan, { position: { n: 1, h: 'a' }, sentAtMs: 1 })).toBe(false)
    expect(replica.prove(scan, { position: genesis, sentAtMs: 1 })).toBe(true)
    expect([...replica.missing]).toEqual([{ kind: 'record', record: record('r1') }])
  })
})

/** Held here, and proven missing in a store that was emptied. */
function missingRecord(): { readonly replica: Replica; readonly missing: Missing } {
  const replica = new Replica()
  replica.restore([record('r1')])
  const scan = replica.beginScan(genesis)
  expect(replica.prove(scan, { position: genesis, sentAtMs: 1 })).toBe(true)
  const [missing, ...more] = replica.missing
  if (!missing || more.length > 0) throw new Error('expected one missing record')
  return { replica, missing }
}

describe('Replica.overflowed', () => {
  test('keeps no assertion for which there is no room', () => {
    const replica = new Replica({ maxRecords: 1 })
    replica.hear(record('r1'), 0)
    for (const more of ['task:T-2', 'task:T-3']) replica.hear(provisional(more, said), 0)
    expect(replica.overflowed).toBe(true)
    expect(replica.assertions(10).map((one) => one.record.subject)).toEqual(['task:T-2'])
  })
})

describe('Replica.restored()', () => {
  test('counts once the record is read: a store that lost it again is scanned, and told again', () => {
    const { replica, missing } = missingRecord()
    replica.restored(missing)
    expect(replica.missing.size).toBe(0)

    // The store was emptied anew, and another record was committed: its history leads on from the empty log.
    const position = { n: 1, h: 'ab' }
    const follow = replica.beginFollow()
    if (!follow) throw new Error('expected to follow')
    replica.readRecords(follow, { records: [record('r2', { subject: 'task:T-2' })], serverMs: 1 })
    expect(replica.prove(follow, { position, sentAtMs: 2 })).toBe(false)

    replica.mistrust()
    const scan = replica.beginScan(position)
    replica.readRecords(scan, { records: [record('r2', { subject: 'task:T-2' })], serverMs: 1 })
    expect(replica.prove(scan, { position, sentAtMs: 3 })).toBe(true)
    expect([...replica.missing]).toEqual([missing])
  })

  test('lets a follow that reads the record prove the view', () => {
    const { replica, missing } = missingRecord()
    replica.restored(missing)
    const follow = replica.beginFollow()
    if (!follow) throw new Error('expected to follow')
    replica.readRecords(follow, { records: [record('r1')], serverMs: 1 })
    expect(replica.prove(follow, { position: { n: 1, h: 'ab' }, sentAtMs: 2 })).toBe(true)
    expect(replica.missing.size).toBe(0)
  })
})
