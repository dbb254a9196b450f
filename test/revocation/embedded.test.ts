import { describe, expect, test } from 'vitest'
import type { Revocation } from '../../policy/types.ts'
import { createEmbeddedGrantStore } from '../../revocation/embedded-grant-store.ts'
import { createEmbeddedRevocation } from '../../revocation/embedded.ts'
import type { RevocationDraft } from '../../revocation/feed.ts'
import { signLift, verifierOf } from '../kit/lifts.ts'
import { manualClock } from '../kit/manual-clock.ts'
import { signingKey } from '../kit/tokens.ts'

const draft: RevocationDraft = {
  rid: 'r1',
  op: 'revoke',
  subject: 'task:T-1',
  reason: 'runaway',
  by: 'op@example.org',
  expiresAtMs: 0,
}

describe('createEmbeddedRevocation()', () => {
  test('is infinitely old before start() and never old after', async () => {
    const clock = manualClock()
    const { feed } = createEmbeddedRevocation({ clock })
    expect([feed.view.ageMs(clock.monotonic()), feed.view.epoch]).toEqual([Infinity, '-'])
    feed.start()
    await feed.ready
    clock.advance(60_000)
    expect([feed.view.ageMs(clock.monotonic()), feed.view.epoch]).toEqual([0, '0:0'])
    await feed[Symbol.asyncDispose]()
    expect(feed.view.ageMs(clock.monotonic())).toBe(Infinity)
  })

  test('has a record in force, and its listeners told, before commit() resolves', async () => {
    const clock = manualClock(1_000_000)
    const { feed, committer } = createEmbeddedRevocation({ clock })
    feed.start()
    const heard: Revocation[] = []
    feed.onApplied((records) => heard.push(...records))
    const committing = committer.commit(draft)
    expect(heard).toEqual([{ ...draft, atMs: 1_000_000, epoch: 1 }])
    expect(feed.view.find(['task:T-1'])?.rid).toBe('r1')
    const committed = await committing
    expect(committed).toEqual({ epoch: feed.view.epoch, atMs: 1_000_000 })
    expect(committed.epoch).toMatch(/^1:[0-9a-f]{40}$/)
  })

  test('keeps one record and one position when commit() is repeated', async () => {
    const { feed, committer } = createEmbeddedRevocation({ clock: manualClock() })
    feed.start()
    let calls = 0
    feed.onApplied(() => calls++)
    const first = await committer.commit(draft)
    expect((await committer.commit(draft)).epoch).toBe(first.epoch)
    expect([calls, feed.status().records]).toEqual([1, 1])
  })

  test('tells its listeners once of a lift, when the record has gone', async () => {
    const key = await signingKey()
    const verifyLift = verifierOf(key)
    const { feed, committer } = createEmbeddedRevocation({ clock: manualClock(), verifyLift })
    feed.start()
    const heard: unknown[] = []
    feed.onLifted(({ lifts }) => heard.push([lifts, feed.view.find(['task:T-1'])]))
    await committer.commit(draft)
    const verified = await verifyLift(signLift(key))
    if (!verified.ok) throw new Error(verified.reason)
    await committer.commitLift(verified.lift)
    await committer.commitLift(verified.lift)
    expect(heard).toEqual([[['r1'], undefined]])
    await committer.commitLift({ ...verified.lift, compact: 'a.b.c' })
    expect(heard).toHaveLength(1)
  })

  test('lets a record go when it expires', async () => {
    const clock = manualClock(1_000_000)
    const { feed, committer } = createEmbeddedRevocation({ clock })
    await committer.commit({ ...draft, expiresAtMs: 1_000_500 })
    clock.advance(499)
    expect(feed.view.find(['task:T-1'])?.rid).toBe('r1')
    clock.advance(1)
    expect(feed.view.find(['task:T-1'])).toBeUndefined()
  })

  test('refuses a draft whose subject means nothing, and says which member', async () => {
    const { feed, committer } = createEmbeddedRevocation({ clock: manualClock() })
    await expect(committer.commit({ ...draft, subject: 'tsak:T-1' })).rejects.toMatchObject({
      code: 'ERR_REVOCATION_DRAFT',
      message: 'Cannot commit: "subject" of the revocation is not valid',
    })
    expect(feed.status().records).toBe(0)
  })
})

describe('createEmbeddedGrantStore()', () => {
  test('gives a grant back until an hour after its expiry', async () => {
    const clock = manualClock(1_000_000)
    const store = createEmbeddedGrantStore({ clock })
    await store.put('T-1', { txn: 'T-1', compact: 'a.b.c', expiresAtMs: 1_001_000 })
    clock.advance(3_600_999)
    expect(await store.get('T-1')).toBe('a.b.c')
    clock.advance(1)
    expect([await store.get('T-1'), await store.list(10)]).toEqual([undefined, []])
  })

  test('lists newest first and forgets the oldest beyond 10,000', async () => {
    const store = createEmbeddedGrantStore({ clock: manualClock(0) })
    for (let n = 0; n <= 10_000; n++) {
      await store.put(`T-${n}`, { txn: `T-${n}`, compact: `${n}`, expiresAtMs: 1 })
    }
    expect((await store.list(2)).map(({ txn }) => txn)).toEqual(['T-10000', 'T-9999'])
    expect([await store.get('T-0'), await store.get('T-1')]).toEqual([undefined, '1'])
  })
})
