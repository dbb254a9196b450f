import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Clock, Revocation } from '../../policy/types.ts'
import type { RevocationDraft, RevocationFeed } from '../../revocation/feed.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { openRedis } from '../../revocation/redis-connection.ts'
import { createRedisFeed, type FeedLog } from '../../revocation/redis-feed.ts'
import { createRedisGrantStore } from '../../revocation/redis-grant-store.ts'
import { redisKeys, revocationChannel } from '../../revocation/redis-keys.ts'
import { commitScript } from '../../revocation/scripts.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
const within = { timeout: 30_000, interval: 20 }
const silent: FeedLog = { info: () => undefined, warn: () => undefined, error: () => undefined }
let server: RedisProcess
let domains = 0

beforeAll(async () => {
  server = await startRedis()
})
afterAll(() => server[Symbol.asyncDispose]())

/** A trust domain of its own, so that tests on one server do not meet. */
function scope() {
  const trustDomain = `test-${domains++}.example.org`
  return { redis: { url: server.url, prefix: 'chaperone' }, trustDomain, clock }
}

function feedOf(at: ReturnType<typeof scope>, log = silent): RevocationFeed {
  return createRedisFeed({ ...at, syncIntervalMs: 50, log })
}

async function startFeed(at: ReturnType<typeof scope>): Promise<RevocationFeed> {
  const feed = feedOf(at)
  feed.start()
  await feed.ready
  return feed
}

function draft(members: Partial<RevocationDraft> = {}): RevocationDraft {
  const rid = crypto.randomUUID()
  const common = { reason: 'runaway', by: 'op@example.org', expiresAtMs: 0 }
  return { rid, op: 'revoke', subject: 'task:T-1', ...common, ...members }
}

const ageOf = (feed: RevocationFeed): number => feed.view.ageMs(performance.now())

describe('createRedisFeed()', () => {
  test('is fresh on an empty store that nobody has set up', async () => {
    await using feed = feedOf(scope())
    expect([ageOf(feed), feed.view.epoch]).toEqual([Infinity, '-'])
    feed.start()
    await feed.ready
    expect(feed.view.epoch).toBe('0:0')
    await vi.waitFor(() => expect(ageOf(feed)).toBeLessThan(1000), within)
    expect(feed.status()).toMatchObject({ source: 'redis', connected: true, records: 0, scans: 1 })
  })

  test('has what was committed before its start', async () => {
    const at = scope()
    await using committer = createRedisCommitter(at)
    const { epoch } = await committer.commit(draft({ rid: 'r1' }))
    await using feed = await startFeed(at)
    expect(feed.view.epoch).toBe(epoch)
    expect(feed.view.find(['task:T-1'])).toMatchObject({ rid: 'r1', reason: 'runaway', epoch: 1 })
  })

  test('tells its listeners of each record once, by message, and then proves the position', async () => {
    const at = scope()
    await using committer = createRedisCommitter(at)
    await using feed = await startFeed(at)
    const heard: Revocation[] = []
    feed.onApplied((records) => {
      for (const record of records) {
        // In force before anyone is told, so that a cut exchange cannot come back.
        expect(feed.view.find([record.subject])?.rid).toBe(record.rid)
        heard.push(record)
      }
    })
    const { epoch, atMs } = await committer.commit(draft({ rid: 'r1' }))
    await committer.commit(draft({ rid: 'r2', subject: 'task:T-2' }))
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^2:/), within)
    expect(heard.map(({ rid }) => rid)).toEqual(['r1', 'r2'])
    expect(heard[0]).toMatchObject({ atMs, epoch: 1 })
    expect(epoch).toMatch(/^1:[0-9a-f]{40}$/)
    expect(feed.status()).toMatchObject({ records: 2, gaps: 0, scans: 1 })
  })

  test('finds by sync what no message brought, and counts the gap', async () => {
    const at = scope()
    await using feed = await startFeed(at)
    const { rid, ...rest } = draft()
    const { head, log, records, expiry } = redisKeys(at)
    const keys = [head, log, records, expiry, 'a channel that nobody hears']
    await server.cli('EVAL', commitScript, '5', ...keys, rid, JSON.stringify({ rid, ...rest }), '0')
    await vi.waitFor(() => expect(feed.view.find(['task:T-1'])?.rid).toBe(rid), within)
    await vi.waitFor(() => expect(feed.status()).toMatchObject({ gaps: 1, scans: 1 }), within)
  })

  test('keeps what is published between its subscription and its first sync', async () => {
    const at = scope()
    const { records } = redisKeys(at)
    // A large store makes the first sync long: the message comes while it reads.
    const fill = `for n = 1, 30000 do redis.call('HSET', KEYS[1], n, '{"n":' .. n .. ',"atMs":1,"record":' ..
      '{"rid":"' .. n .. '","op":"revoke","subject":"task:old-' .. n .. '","reason":"","by":"","expiresAtMs":0}}') end`
    await server.cli('EVAL', fill, '1', records)
    await using feed = feedOf(at)
    const epochsWhenHeard: string[] = []
    feed.onApplied(([first]) => {
      if (first?.subject === 'task:T-1') epochsWhenHeard.push(feed.view.epoch)
    })
    feed.start()
    const publisher = openRedis(at.redis)
    await publisher.connect()
    while ((await publisher.publish(revocationChannel(at), 'task:T-1')) === 0);
    await feed.ready
    publisher.disconnect()
    expect(epochsWhenHeard).toEqual(['-'])
    await vi.waitFor(() => expect(feed.view.find(['task:T-1'])?.by).toBe('bare'), within)
    expect(feed.status().records).toBe(30_001)
  })

  test('reads the whole store when its position is not of this history, and keeps what it had', async () => {
    const at = scope()
    await using committer = createRedisCommitter(at)
    await committer.commit(draft({ rid: 'old' }))
    await using feed = await startFeed(at)
    const { head, log, records, expiry } = redisKeys(at)
    // Another history of the same length: a plain counter would not see it.
    await server.cli('DEL', head, log, records, expiry)
    await committer.commit(draft({ rid: 'new', subject: 'task:T-2' }))
    await vi.waitFor(() => expect(feed.status()).toMatchObject({ scans: 2 }), within)
    expect(feed.view.find(['task:T-1'])?.rid).toBe('old')
    expect(feed.view.find(['task:T-2'])?.rid).toBe('new')
    // The new history is given what it lacks.
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^2:/), within)
    expect(feed.status()).toMatchObject({ records: 2, missingInStore: 0 })
  })

  test('lets a record go by the clock of Redis', async () => {
    const at = scope()
    await using committer = createRedisCommitter(at)
    await using feed = await startFeed(at)
    // Long enough that a slow machine meets it in force.
    await committer.commit(draft({ expiresAtMs: Date.now() + 4_000 }))
    await vi.waitFor(() => expect(feed.view.find(['task:T-1'])).toBeDefined(), within)
    await vi.waitFor(() => expect(feed.view.find(['task:T-1'])).toBeUndefined(), within)
    await vi.waitFor(() => expect(ageOf(feed)).toBeLessThan(1000), within)
  })

  test('goes stale when a record in the store cannot be read', async () => {
    const at = scope()
    const warnings: string[] = []
    await server.cli('HSET', redisKeys(at).records, 'r1', '{"n":1,"op":"something new"}')
    const warn = (fields: object): void => void warnings.push(JSON.stringify(fields))
    await using feed = feedOf(at, { ...silent, warn })
    feed.start()
    await vi.waitFor(() => expect(warnings[0]).toContain('ERR_REVOCATION_STORE_REPLY'), within)
    expect(ageOf(feed)).toBe(Infinity)
  })
})

describe('a message by hand', () => {
  test.each([
    ['task:T-1', 'published on the channel'],
    ['task:T-1 it runs away', 'it runs away'],
    ['{"subject":"task:T-1","reason":"it runs away"}', 'it runs away'],
  ])('%s is in force at once and once', async (payload, reason) => {
    const at = scope()
    await using feed = await startFeed(at)
    const said: string[] = []
    feed.onApplied((records) => said.push(...records.map(({ by }) => by)))
    await server.cli('PUBLISH', revocationChannel(at), payload)
    await server.cli('PUBLISH', revocationChannel(at), payload)
    await vi.waitFor(() => {
      expect(feed.view.epoch).toMatch(/^1:/)
      expect(feed.status()).toMatchObject({ records: 1, missingInStore: 0 })
    }, 10_000)
    expect(feed.view.find(['task:T-1'])).toMatchObject({ op: 'revoke', reason, by: 'bare' })
    // Once when it was heard, and once when the store made a record of it.
    expect(said).toEqual(['channel', 'bare'])
  })

  test('that means nothing is counted, and a lift is counted and lifts nothing', async () => {
    const at = scope()
    await using feed = await startFeed(at)
    const say = (text: string): Promise<string> =>
      server.cli('PUBLISH', revocationChannel(at), text)
    await say('task:T-1')
    for (const text of [
      '',
      'T-1',
      'tsak:T-1',
      '{',
      '{"subject":1}',
      `task:${'x'.repeat(20_000)}`,
    ]) {
      await say(text)
    }
    await say('{"op":"lift","lifts":["r1"]}')
    await vi.waitFor(
      () => expect(feed.status()).toMatchObject({ malformed: 6, liftsIgnored: 1 }),
      within,
    )
    expect(feed.status().records).toBe(1)
    expect(feed.view.find(['task:T-1'])).toBeDefined()
  })
})

describe('createRedisCommitter()', () => {
  test('keeps one record when commit() is repeated, and refuses another under its rid', async () => {
    await using committer = createRedisCommitter(scope())
    const one = draft()
    const first = await committer.commit(one)
    expect(await committer.commit(one)).toEqual(first)
    await expect(committer.commit({ ...one, subject: 'task:T-2' })).rejects.toMatchObject({
      code: 'ERR_REVOCATION_RID_CONFLICT',
    })
    expect(await committer.list(10)).toMatchObject([{ rid: one.rid, epoch: 1 }])
  })

  test('lists what is in force, newest first and at most the limit', async () => {
    await using committer = createRedisCommitter(scope())
    await committer.commit(draft({ rid: 'r1' }))
    await committer.commit(draft({ rid: 'r2', op: 'pause' }))
    await committer.commit(draft({ rid: 'r3', expiresAtMs: 1_000 }))
    expect((await committer.list(10)).map(({ rid }) => rid)).toEqual(['r2', 'r1'])
    expect((await committer.list(2)).map(({ rid }) => rid)).toEqual(['r2'])
    expect(await committer.list(0)).toEqual([])
  })
})

describe('createRedisGrantStore()', () => {
  test('gives back and lists what was put, newest first', async () => {
    let nowMs = 1_000
    const at = { ...scope(), clock: { ...clock, now: () => nowMs++ } }
    await using store = createRedisGrantStore(at)
    const expiresAtMs = Date.now() + 60_000
    const grants = ['T-1', 'T-2'].map((txn) => ({ txn, compact: `${txn}.b.c`, expiresAtMs }))
    for (const grant of grants) await store.put(grant.txn, grant)
    expect(await store.get('T-1')).toBe('T-1.b.c')
    expect(await store.list(10)).toEqual(grants.toReversed())
    expect(await store.list(1)).toEqual(grants.slice(1))
  })

  test('keeps a grant for an hour after its expiry and no longer', async () => {
    const at = scope()
    await using store = createRedisGrantStore(at)
    const hourAgo = Date.now() - 3_600_000
    await store.put('T-1', { txn: 'T-1', compact: 'a.b.c', expiresAtMs: hourAgo + 60_000 })
    await store.put('T-2', { txn: 'T-2', compact: 'a.b.c', expiresAtMs: hourAgo - 1 })
    expect([await store.get('T-1'), await store.get('T-2')]).toEqual(['a.b.c', undefined])
  })

  test('has nothing for what is no task, and does not ask for it', async () => {
    await using store = createRedisGrantStore(scope())
    expect(await store.get('../head')).toBeUndefined()
    await expect(
      store.put('a b', { txn: 'a b', compact: 'a', expiresAtMs: 1 }),
    ).rejects.toMatchObject({ code: 'ERR_GRANT_STORE_TXN' })
  })
})
