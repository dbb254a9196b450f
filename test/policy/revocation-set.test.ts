import { describe, expect, test } from 'vitest'
import { RevocationSet, RevocationSetFullError } from '../../policy/revocation-set.ts'
import { chainSubjects } from '../../policy/subject.ts'
import type { Revocation } from '../../policy/types.ts'
import { names } from '../kit/tokens.ts'

let rids = 0
function record(members: Partial<Revocation> = {}): Revocation {
  return {
    rid: `r${rids++}`,
    op: 'revoke',
    subject: 'task:T-1',
    reason: 'test',
    by: 'op@example.org',
    atMs: 1_000,
    expiresAtMs: 0,
    epoch: 1,
    ...members,
  }
}

function setOf(...records: readonly Revocation[]): RevocationSet {
  const set = new RevocationSet()
  for (const one of records) set.add(one)
  return set
}

describe('RevocationSet.find()', () => {
  test('gives nothing when the set is empty or names others', () => {
    expect(new RevocationSet().find(['task:T-1', 'all'])).toBeUndefined()
    expect(setOf(record({ subject: 'task:T-2' })).find(['task:T-1', 'all'])).toBeUndefined()
  })

  test('gives the record on any subject of the list', () => {
    const all = record({ subject: 'all' })
    expect(setOf(all).find(['task:T-1', ...chainSubjects([])])).toEqual(all)
  })

  test('gives the revoke when a pause on the same subject came first', () => {
    const pause = record({ op: 'pause' })
    const revoke = record({ op: 'revoke' })
    expect(setOf(pause, revoke).find(['task:T-1'])).toEqual(revoke)
    expect(setOf(revoke, pause).find(['task:T-1'])).toEqual(revoke)
  })

  test('gives the quarantine of the agent when its task is revoked too', () => {
    const revoke = record()
    const quarantine = record({ op: 'quarantine', subject: `agent:${names.agent}` })
    expect(setOf(revoke, quarantine).find(['task:T-1', `agent:${names.agent}`])).toEqual(quarantine)
  })

  test('gives the first recorded of equals on one subject', () => {
    const first = record()
    expect(setOf(first, record({ epoch: 2 })).find(['task:T-1'])).toEqual(first)
  })
})

describe('RevocationSet.add()', () => {
  test('says that a replay is not new and keeps one', () => {
    const one = record()
    const set = setOf(one)
    expect(set.add({ ...one })).toBe(false)
    expect(set.size).toBe(1)
  })

  test.each<[string, Partial<Revocation>]>([
    ['another subject', { subject: 'task:nobody' }],
    ['a sooner expiry', { expiresAtMs: 2_000 }],
    ['a weaker operation', { op: 'pause' }],
  ])('is not fooled by a forged record with the same rid and %s', (_what, forged) => {
    const real = record({ expiresAtMs: 9_000 })
    const set = setOf({ ...real, ...forged })
    expect(set.add(real)).toBe(true)
    set.expire(3_000)
    expect(set.find(['task:T-1'])).toEqual(real)
  })

  test('throws when the set is full, and a record that it has is no news then', () => {
    const set = new RevocationSet({ maxRecords: 1 })
    const one = record()
    set.add(one)
    expect(set.add(one)).toBe(false)
    expect(() => set.add(record())).toThrow(RevocationSetFullError)
    expect(set.find(['task:T-1'])).toEqual(one)
  })
})

describe('RevocationSet.expire()', () => {
  test('drops what has expired at that instant and nothing else', () => {
    const early = record({ expiresAtMs: 5_000 })
    const late = record({ op: 'pause', expiresAtMs: 6_000 })
    const never = record({ subject: 'all' })
    const set = setOf(early, late, never)
    expect(set.expire(4_999)).toEqual([])
    expect(set.find(['task:T-1'])).toEqual(early)
    expect(set.expire(5_000).map((gone) => gone.record)).toEqual([early])
    expect(set.find(['task:T-1'])).toEqual(late)
    expect(set.expire(6_000).map((gone) => gone.record)).toEqual([late])
    expect(set.find(['task:T-1'])).toBeUndefined()
    expect(set.expire(Number.MAX_SAFE_INTEGER)).toEqual([])
    expect(set.records()).toEqual([never])
  })
})
