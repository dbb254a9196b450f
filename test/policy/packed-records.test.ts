import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { HashIndex, hashText } from '../../policy/hash-index.ts'
import { PackedRecords } from '../../policy/packed-records.ts'
import { isDurable, recordKey, RevocationSet } from '../../policy/revocation-set.ts'
import type { Revocation } from '../../policy/types.ts'

const subjects = ['task:T-1', 'task:T-2', 'agent:spiffe://example.org/a', 'all']
const op = fc.constantFrom('revoke', 'pause', 'quarantine')

const recordOf: fc.Arbitrary<Revocation> = fc
  .record({
    rid: fc.integer({ min: 0, max: 40 }).map((n) => `r${n}`),
    op,
    subject: fc.constantFrom(...subjects),
    reason: fc.string({ unit: 'binary', maxLength: 30 }).map((text) => text.toWellFormed()),
    by: fc.constantFrom('oncall', 'a\nb', '12 x', ''),
    atMs: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
    expiresAtMs: fc.constantFrom(0, 0, 100, 200, 300, Number.MAX_SAFE_INTEGER),
    epoch: fc.integer({ min: 1, max: 2 ** 48 - 1 }),
  })
  .chain((record) => {
    const { epoch: _, ...provisional } = record
    return fc.constantFrom<Revocation>(record, record, record, { ...provisional, expiresAtMs: 0 })
  })

const stepOf = fc.oneof(
  { weight: 6, arbitrary: recordOf.map((record) => ({ kind: 'add', record }) as const) },
  { weight: 1, arbitrary: recordOf.map((record) => ({ kind: 'drop', record }) as const) },
  { weight: 1, arbitrary: recordOf.map(({ rid }) => ({ kind: 'lift', rid }) as const) },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(50, 100, 250, 300)
      .map((nowMs) => ({ kind: 'expire', nowMs }) as const),
  },
)

/** What the set is, said in the plainest way. */
class PlainSet {
  readonly held = new Map<string, Revocation>()
  readonly lifted = new Set<string>()

  add(record: Revocation): boolean {
    if (this.held.has(recordKey(record))) return false
    this.held.set(recordKey(record), record)
    return true
  }

  lift(rid: string): boolean {
    if (this.lifted.has(rid)) return false
    this.lifted.add(rid)
    return true
  }

  drop(record: Revocation): void {
    const held = this.held.get(recordKey(record))
    if (held && !isDurable(held)) this.held.delete(recordKey(held))
  }

  isInForce(record: Revocation): boolean {
    return !(isDurable(record) && this.lifted.has(record.rid))
  }

  expire(nowMs: number): void {
    const gone = [...this.held.values()].filter(
      (record) => isDurable(record) && record.expiresAtMs !== 0 && record.expiresAtMs <= nowMs,
    )
    for (const record of gone) this.held.delete(recordKey(record))
    for (const { rid } of gone) {
      const more = [...this.held.values()].some((other) => isDurable(other) && other.rid === rid)
      if (!more) this.lifted.delete(rid)
    }
  }

  onSubject(subject: string): readonly Revocation[] {
    return [...this.held.values()].filter(
      (record) => record.subject === subject && this.isInForce(record),
    )
  }
}

type Step = typeof stepOf extends fc.Arbitrary<infer T> ? T : never

/** Whether the step was news; undefined when it does not say. */
function apply(set: RevocationSet | PlainSet, step: Step): boolean | undefined {
  if (step.kind === 'add') return set.add(step.record)
  if (step.kind === 'lift') return set.lift(step.rid)
  if (step.kind === 'drop') set.drop(step.record)
  else set.expire(step.nowMs)
  return undefined
}

function keysOf(records: Iterable<Revocation>): readonly string[] {
  return [...records].map(recordKey).toSorted()
}

const strictness = { pause: 1, revoke: 2, quarantine: 3 }

describe('RevocationSet', () => {
  test('is what a plain map would be, whatever is added, lifted, dropped and expired', () => {
    fc.assert(
      fc.property(fc.array(stepOf, { maxLength: 120 }), (steps) => {
        const [set, plain] = [new RevocationSet(), new PlainSet()]
        for (const step of steps) {
          expect(apply(set, step)).toBe(apply(plain, step))
          const found = set.find(subjects)
          const inForce = subjects.flatMap((subject) => plain.onSubject(subject))
          expect(set.size).toBe(inForce.length)
          const strictest = Math.max(0, ...inForce.map((record) => strictness[record.op]))
          expect(found ? strictness[found.op] : 0).toBe(strictest)
          expect(found && plain.held.get(recordKey(found))).toEqual(found)
          for (const subject of subjects) {
            expect(set.find([subject]) === undefined).toBe(plain.onSubject(subject).length === 0)
          }
        }
        expect(keysOf(set.records())).toEqual(keysOf(plain.held.values()))
        expect(set.durable().size).toBe([...plain.held.values()].filter(isDurable).length)
      }),
      { numRuns: 300 },
    )
  })

  test('finds each of 20,000 subjects, and none of 20,000 others', () => {
    const set = new RevocationSet()
    for (let n = 0; n < 20_000; n++) set.add(numbered(n))
    for (let n = 0; n < 20_000; n++) {
      expect(set.find([`task:T-${n}`])?.rid).toBe(`r${n}`)
      expect(set.find([`task:U-${n}`])).toBeUndefined()
    }
  })

  test('expires what is too much for one call with the next ones, the earliest first', () => {
    const set = new RevocationSet()
    for (let n = 10_000; n > 0; n--) set.add({ ...numbered(n), expiresAtMs: n })
    const counts: number[] = []
    let latest = 0
    for (let gone = set.expire(9_000); gone.length > 0; gone = set.expire(9_000)) {
      counts.push(gone.length)
      for (const { record } of gone) {
        expect(record.expiresAtMs).toBeGreaterThan(latest)
        latest = record.expiresAtMs
      }
    }
    expect(counts).toEqual([4096, 4096, 808])
    expect(set.size).toBe(1000)
  })
})

describe('PackedRecords', () => {
  test('gives back the pages of records that are gone, and keeps what is left', () => {
    const records = new PackedRecords()
    const ids = Array.from({ length: 20_000 }, (_, n) => records.add(numbered(n)))
    const most = records.bytes
    for (const [n, id] of ids.entries()) if (n % 100 !== 0) records.delete(id)
    expect(records.size).toBe(200)
    expect(records.bytes).toBeLessThan(most / 5)
    const kept = [...ids.entries()].filter(([n]) => n % 100 === 0)
    for (const [n, id] of kept) expect(records.get(id)).toEqual(numbered(n))
  })

  test('takes no more room for records that come and go', () => {
    const records = new PackedRecords()
    for (let n = 0; n < 1000; n++) records.add(numbered(n))
    const before = records.bytes
    for (let n = 0; n < 50_000; n++) records.delete(records.add(numbered(n)))
    expect(records.bytes).toBeLessThan(before + 200_000)
  })

  test('names the last that were added, in their order', () => {
    const records = new PackedRecords()
    for (let n = 0; n < 5000; n++) records.add(numbered(n))
    expect(records.newest(3).map(({ rid }) => rid)).toEqual(['r4997', 'r4998', 'r4999'])
  })

  test('refuses what no page has room for', () => {
    const long = { ...numbered(1), reason: 'x'.repeat(70_000) }
    expect(() => new PackedRecords().add(long)).toThrow(RangeError)
  })
})

describe('HashIndex', () => {
  test('has all ids of one hash, and lets each go once', () => {
    const index = new HashIndex()
    for (let id = 0; id < 1000; id++) index.add(id, hashText(`x${id % 10}`))
    const found: number[] = []
    const hash = hashText('x3')
    for (let id = index.first(hash); id !== undefined; id = index.after(id)) found.push(id)
    expect(found.toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 100 }, (_, n) => n * 10 + 3),
    )
    expect([index.delete(3), index.delete(3), index.delete(99_999)]).toEqual([true, false, false])
  })
})

function numbered(n: number): Revocation {
  const said = { reason: 'wrong customer', by: 'oncall', atMs: n, expiresAtMs: 0 }
  return { rid: `r${n}`, op: 'revoke', subject: `task:T-${n}`, ...said, epoch: n + 1 }
}
