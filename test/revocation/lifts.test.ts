import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Lift } from '../../policy/lift.ts'
import type { Clock } from '../../policy/types.ts'
import { createEmbeddedRevocation } from '../../revocation/embedded.ts'
import type { RevocationDraft, RevocationFeed } from '../../revocation/feed.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { createRedisFeed, type FeedLog } from '../../revocation/redis-feed.ts'
import { redisKeys, revocationChannel } from '../../revocation/redis-keys.ts'
import { signLift, verifierOf } from '../kit/lifts.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'
import { signingKey, type SigningKey } from '../kit/tokens.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
const within = { timeout: 30_000, interval: 20 }
let server: RedisProcess
let key: SigningKey
let stranger: SigningKey
let domains = 0

beforeAll(async () => {
  server = await startRedis()
  key = await signingKey()
  stranger = await signingKey('ES256', { kid: key.kid })
})
afterAll(() => server[Symbol.asyncDispose]())

/** A trust domain of its own, so that tests on one server do not meet. */
function scope() {
  const trustDomain = `lifts-${domains++}.example.org`
  const redis = { url: server.url, prefix: 'chaperone' }
  return { redis, trustDomain, clock, verifyLift: verifierOf(key, trustDomain) }
}
type Scope = ReturnType<typeof scope>

async function startFeed(
  at: Scope,
  error: FeedLog['error'] = () => undefined,
): Promise<RevocationFeed> {
  const log: FeedLog = { info: () => undefined, warn: () => undefined, error }
  const feed = createRedisFeed({ ...at, syncIntervalMs: 50, log })
  feed.start()
  await feed.ready
  return feed
}

function draft(members: Partial<RevocationDraft> = {}): RevocationDraft {
  const common = { subject: 'task:T-1', reason: 'odd', by: 'ops', expiresAtMs: 0 }
  return { rid: 'r1', op: 'pause', ...common, ...members }
}

function liftOf(at: Scope, options: { signer?: SigningKey; rids?: readonly string[] } = {}): Lift {
  const { signer = key, rids: lifts = ['r1'] } = options
  const rid = crypto.randomUUID()
  const { trustDomain } = at
  const compact = signLift(signer, { trustDomain, claims: { jti: rid, lifts } })
  return { rid, lifts, by: 'oncall', reason: 'looked at it', atMs: 0, compact }
}

const find = (feed: RevocationFeed): string | undefined => feed.view.find(['task:T-1'])?.rid
/** Until a sync was asked from now on: what the store and the channel had is known by then. */
async function beats(feed: RevocationFeed): Promise<void> {
  const from = performance.now()
  await vi.waitFor(
    () => expect(feed.view.ageMs(performance.now())).toBeLessThan(performance.now() - from),
    within,
  )
}

describe('createRedisFeed()', () => {
  test('lets a record go when an operator lifts it, and one that starts later never announces it', async () => {
    const at = scope()
    await using committer = createRedisCommitter(at)
    await using feed = await startFeed(at)
    const lifted: (readonly [string, string | undefined])[] = []
    feed.onLifted(({ rid }) => lifted.push([rid, find(feed)]))
    await committer.commit(draft())
    await vi.waitFor(() => expect(find(feed)).toBe('r1'), within)
    const lift = liftOf(at)
    await committer.commitLift(lift)
    await vi.waitFor(() => expect(find(feed)).toBeUndefined(), within)
    await beats(feed)
    // Once, though the channel and the log both brought it, and when the record had gone.
    expect(lifted).toEqual([[lift.rid, undefined]])
    expect(feed.status()).toMatchObject({ records: 0, liftsIgnored: 0 })
    expect(await committer.list(10)).toEqual([])

    const applied = vi.fn<() => void>()
    const log: FeedLog = { info: () => undefined, warn: () => undefined, error: () => undefined }
    await using later = createRedisFeed({ ...at, syncIntervalMs: 50, log })
    later.onApplied(applied)
    const heard: string[] = []
    later.onLifted(({ rid }) => heard.push(rid))
    later.start()
    await later.ready
    expect(find(later)).toBeUndefined()
    expect(applied).not.toHaveBeenCalled()
    expect(heard).toEqual([lift.rid])
  })

  test('keeps what a lift does not name: the same subject, recorded again', async () => {
    const at = scope()
    await using committer = createRedisCommitter(at)
    await using feed = await startFeed(at)
    const lift = liftOf(at)
    await committer.commit(draft())
    await committer.commitLift(lift)
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^2:/), within)
    await committer.commit(draft({ rid: 'r2' }))
    // Replayed on the channel and in the store.
    await server.cli('PUBLISH', revocationChannel(at), envelopeOf(lift))
    await committer.commitLift(lift)
    await beats(feed)
    expect(find(feed)).toBe('r2')
  })

  test('applies a lift that came before its record', async () => {
    const at = scope()
    await using committer = createRedisCommitter(at)
    await using feed = await startFeed(at)
    const applied = vi.fn<() => void>()
    feed.onApplied(applied)
    await committer.commitLift(liftOf(at))
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^1:/), within)
    await committer.commit(draft())
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^2:/), within)
    expect(find(feed)).toBeUndefined()
    expect(applied).not.toHaveBeenCalled()
  })

  test('takes a signed lift from the channel', async () => {
    const at = scope()
    await using committer = createRedisCommitter(at)
    await using feed = await startFeed(at)
    await committer.commit(draft())
    await vi.waitFor(() => expect(find(feed)).toBe('r1'), within)
    await server.cli('PUBLISH', revocationChannel(at), envelopeOf(liftOf(at)))
    await vi.waitFor(() => expect(find(feed)).toBeUndefined(), within)
  })

  test.each([
    ['another key signed', (at: Scope) => liftOf(at, { signer: stranger })],
    ['is of another trust domain', () => liftOf(scope())],
  ])('ignores, counts and reports a lift that %s', async (_case, make) => {
    const at = scope()
    const error = vi.fn<FeedLog['error']>()
    await using committer = createRedisCommitter(at)
    await using feed = await startFeed(at, error)
    await committer.commit(draft())
    const lift = make(at)
    await server.cli('PUBLISH', revocationChannel(at), envelopeOf(lift))
    await committer.commitLift(lift)
    // In the store too it is no reason to be stale: it is known, and it means nothing.
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^2:/), within)
    expect(find(feed)).toBe('r1')
    expect(feed.status()).toMatchObject({ liftsIgnored: 1, records: 1 })
    expect(error).toHaveBeenCalledWith(
      expect.objectContaining({ liftsIgnored: 1 }),
      'Ignored a lift: nothing is lifted',
    )
    expect(await committer.list(10)).toMatchObject([{ rid: 'r1' }])
  })

  test('lifts nothing when the configuration names no operator', async () => {
    const { verifyLift: _verifyLift, ...at } = scope()
    const log: FeedLog = { info: () => undefined, warn: () => undefined, error: () => undefined }
    await using committer = createRedisCommitter(at)
    await using feed = createRedisFeed({ ...at, syncIntervalMs: 50, log })
    feed.start()
    await committer.commit(draft())
    await committer.commitLift(liftOf({ ...at, verifyLift: verifierOf(key) }))
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^2:/), within)
    expect(find(feed)).toBe('r1')
  })

  test('gives lifts and records back to a store that was emptied', async () => {
    const at = scope()
    const error = vi.fn<FeedLog['error']>()
    await using committer = createRedisCommitter(at)
    await using feed = await startFeed(at, error)
    await committer.commit(draft())
    await committer.commitLift(liftOf(at))
    await committer.commit(draft({ rid: 'r2', subject: 'task:T-2' }))
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^3:/), within)
    const { head, log, records, expiry } = redisKeys(at)
    await server.cli('DEL', head, log, records, expiry)
    await vi.waitFor(() => expect(error).toHaveBeenCalledTimes(1), within)
    expect(error).toHaveBeenCalledWith(
      expect.objectContaining({ missing: 3 }),
      expect.stringContaining('it is empty'),
    )
    await vi.waitFor(async () => {
      expect(feed.status().missingInStore).toBe(0)
      expect(await server.cli('HLEN', records)).toBe('3')
    }, within)
    await using later = await startFeed(at)
    expect(find(later)).toBeUndefined()
    expect(later.view.find(['task:T-2'])?.rid).toBe('r2')
  })
})

describe('createEmbeddedRevocation()', () => {
  test('lets go what an operator lifts, and nothing by another signature', async () => {
    const at = scope()
    const { feed, committer } = createEmbeddedRevocation(at)
    feed.start()
    await committer.commit(draft())
    await committer.commitLift(liftOf(at, { signer: stranger }))
    expect(find(feed)).toBe('r1')
    expect(feed.status()).toMatchObject({ liftsIgnored: 1, records: 1 })
    await committer.commitLift(liftOf(at))
    expect(find(feed)).toBeUndefined()
    expect(feed.view.epoch).toMatch(/^2:/)
  })
})

function envelopeOf({ rid, compact }: Lift): string {
  return JSON.stringify({ n: 2, atMs: 1, record: { rid, op: 'lift', jws: compact } })
}
