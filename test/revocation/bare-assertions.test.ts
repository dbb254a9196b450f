import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Clock, Revocation } from '../../policy/types.ts'
import type { RevocationFeed } from '../../revocation/feed.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { createRedisFeed, type FeedLog } from '../../revocation/redis-feed.ts'
import { redisKeys, revocationChannel } from '../../revocation/redis-keys.ts'
import { provisional } from '../../revocation/revocation-record.ts'
import { absorbScript } from '../../revocation/scripts.ts'
import { signLift, verifierOf } from '../kit/lifts.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'
import { signingKey, type SigningKey } from '../kit/tokens.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
const within = { timeout: 30_000, interval: 20 }
let server: RedisProcess
let key: SigningKey
let domains = 0

beforeAll(async () => {
  server = await startRedis()
  key = await signingKey()
})
afterAll(() => server[Symbol.asyncDispose]())

function scope() {
  const trustDomain = `bare-${domains++}.example.org`
  const redis = { url: server.url, prefix: 'chaperone' }
  return { redis, trustDomain, clock, verifyLift: verifierOf(key, trustDomain) }
}
type Scope = ReturnType<typeof scope>

async function startFeed(
  at: Scope,
  { warn = () => undefined, error = () => undefined }: Partial<FeedLog> = {},
): Promise<RevocationFeed> {
  const log: FeedLog = { info: () => undefined, warn, error }
  const feed = createRedisFeed({ ...at, syncIntervalMs: 50, log })
  feed.start()
  await feed.ready
  return feed
}

const find = (feed: RevocationFeed): Revocation | undefined => feed.view.find(['task:T-1'])

/** The record that stands for the assertion, once every feed has it and none holds more. */
async function absorbed(...feeds: readonly RevocationFeed[]): Promise<Revocation> {
  return vi.waitFor(() => {
    const [first, ...others] = feeds.map(find)
    if (first?.epoch === undefined) throw new Error('not absorbed yet')
    for (const other of others) expect(other?.rid).toBe(first.rid)
    for (const feed of feeds) expect(feed.status().records).toBe(1)
    return first
  }, within)
}

async function lift(at: Scope, rid: string): Promise<void> {
  await using committer = createRedisCommitter(at)
  const jti = crypto.randomUUID()
  const compact = signLift(key, { trustDomain: at.trustDomain, claims: { jti, lifts: [rid] } })
  await committer.commitLift({ rid: jti, lifts: [rid], by: '', reason: '', atMs: 0, compact })
}

describe('a bare PUBLISH', () => {
  test('becomes one record, whoever of the sidecars is first, and survives them all', async () => {
    const at = scope()
    {
      await using one = await startFeed(at)
      await using two = await startFeed(at)
      await using three = await startFeed(at)
      await server.cli('PUBLISH', revocationChannel(at), 'task:T-1 "quoted" ünïcode')
      expect(await absorbed(one, two, three)).toMatchObject({
        op: 'revoke',
        by: 'bare',
        reason: '"quoted" ünïcode',
        expiresAtMs: 0,
      })
      expect(await server.cli('HLEN', redisKeys(at).records)).toBe('1')
    }
    await using later = await startFeed(at)
    expect(find(later)?.by).toBe('bare')
  })

  test('said again while its record is in force adds none, and said after its lift adds another', async () => {
    const at = scope()
    await using feed = await startFeed(at)
    const say = (): Promise<string> => server.cli('PUBLISH', revocationChannel(at), 'task:T-1')
    await say()
    const first = await absorbed(feed)
    await say()
    expect((await absorbed(feed)).rid).toBe(first.rid)
    await lift(at, first.rid)
    await vi.waitFor(() => expect(find(feed)).toBeUndefined(), within)
    await say()
    const second = await absorbed(feed)
    expect(second.rid).not.toBe(first.rid)
    expect(await server.cli('HLEN', redisKeys(at).records)).toBe('3')
  })

  test('gets another rid in a store that was emptied, so that an old lift does not name it', async () => {
    const { head, log, records, expiry, channel, absorbed: mapping, revoked } = redisKeys(scope())
    const keys = [head, log, records, expiry, channel, mapping, revoked]
    const { rid } = provisional('task:T-1', { reason: '', by: 'channel', nowMs: 0 })
    const absorb = (): Promise<string> =>
      server.cli('EVAL', absorbScript, '7', ...keys, 'task:T-1', 'drill', '', rid)
    const first = await absorb()
    expect(await absorb()).toBe(first)
    await server.cli('DEL', ...keys)
    const second = await absorb()
    expect(first.startsWith(`${rid}-`)).toBe(true)
    expect([first, second]).toEqual([
      expect.stringMatching(/^bare-[0-9a-f]{32}-\d{16}-1$/),
      expect.stringMatching(/^bare-[0-9a-f]{32}-\d{16}-1$/),
    ])
    expect(second).not.toBe(first)
  })

  test('stays in force where it was heard when the sidecar may not run scripts', async () => {
    await using own = await startRedis()
    const at = { ...scope(), redis: { url: own.url, prefix: 'chaperone' } }
    const warn = vi.fn<FeedLog['warn']>()
    await own.cli('ACL', 'SETUSER', 'default', '-eval', '-evalsha')
    await using feed = await startFeed(at, { warn })
    await own.cli('PUBLISH', revocationChannel(at), 'task:T-1')
    await vi.waitFor(
      () =>
        expect(warn).toHaveBeenCalledWith(
          expect.objectContaining({ reason: expect.stringContaining('NOPERM') }),
          expect.stringContaining('stays in force here'),
        ),
      within,
    )
    expect(find(feed)).toMatchObject({ by: 'channel' })
    expect(feed.view.ageMs(performance.now())).toBeLessThan(5_000)
  })
})

describe('a bare SADD', () => {
  test('becomes one record and leaves the set, and SREM lifts nothing', async () => {
    const at = scope()
    const { revoked, records } = redisKeys(at)
    await using one = await startFeed(at)
    await using two = await startFeed(at)
    await server.cli('SADD', revoked, 'task:T-1', 'not a subject')
    const { rid, by } = await absorbed(one, two)
    expect(by).toBe('bare')
    await vi.waitFor(
      async () => expect(await server.cli('SMEMBERS', revoked)).toBe('not a subject'),
      within,
    )
    await server.cli('SREM', revoked, 'task:T-1')
    expect((await absorbed(one, two)).rid).toBe(rid)
    expect(await server.cli('HLEN', records)).toBe('1')
  })

  test('is not asserted again by its own absorption: its lift ends it', async () => {
    const at = scope()
    await using one = await startFeed(at)
    await using two = await startFeed(at)
    await server.cli('SADD', redisKeys(at).revoked, 'task:T-1')
    const { rid } = await absorbed(one, two)
    await lift(at, rid)
    await vi.waitFor(() => expect([find(one), find(two)]).toEqual([undefined, undefined]), within)
    expect(await server.cli('HLEN', redisKeys(at).records)).toBe('2')
  })

  test('of what names no subject is told once, for as long as it stands there', async () => {
    const at = scope()
    const { revoked } = redisKeys(at)
    await server.cli('SADD', revoked, 'not a subject')
    const error = vi.fn<FeedLog['error']>()
    await using feed = await startFeed(at, { error })
    const told = [{ unreadable: 1 }, expect.stringContaining('name no subject: they deny nothing')]
    expect(error.mock.calls).toEqual([told])
    await server.cli('SADD', revoked, 'task:T-1')
    // A later sync has read the set again, and that member with it.
    await absorbed(feed)
    expect(error.mock.calls).toEqual([told])
    await server.cli('SREM', revoked, 'not a subject')
    await server.cli('SADD', revoked, 'task:T-2')
    await vi.waitFor(() => expect(feed.view.find(['task:T-2'])?.by).toBe('bare'), within)
    await server.cli('SADD', revoked, 'not a subject')
    await vi.waitFor(() => expect(error.mock.calls).toEqual([told, told]), within)
  })
})
