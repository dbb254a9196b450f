import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import type { RedisConfig } from '../../config/schema.ts'
import type { Clock } from '../../policy/types.ts'
import type { RevocationDraft, RevocationFeed } from '../../revocation/feed.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { createRedisFeed } from '../../revocation/redis-feed.ts'
import { createRedisGrantStore } from '../../revocation/redis-grant-store.ts'
import { revocationChannel } from '../../revocation/redis-keys.ts'
import { manualClock } from '../kit/manual-clock.ts'
import { startRedis } from '../kit/redis.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
const boundMs = 1000
const within = { timeout: 30_000, interval: 20 }

interface Scope {
  readonly redis: RedisConfig
  readonly trustDomain: string
  readonly clock: Clock
}

function scopeOf(url: string): Scope {
  return { redis: { url, prefix: 'chaperone' }, trustDomain: 'prod.example.org', clock }
}

function feedOf(
  at: Scope,
  { lines = [], syncIntervalMs = 100 }: { lines?: string[]; syncIntervalMs?: number } = {},
): RevocationFeed {
  const write = (fields: object, message: string): void => {
    lines.push(`${message} ${JSON.stringify(fields)}`)
  }
  const log = { info: write, warn: write, error: write }
  return createRedisFeed({ ...at, syncIntervalMs, log })
}

const draft: RevocationDraft = {
  rid: 'r1',
  op: 'revoke',
  subject: 'task:T-1',
  reason: 'runaway',
  by: 'op@example.org',
  expiresAtMs: 0,
}

const ageOf = (feed: RevocationFeed): number => feed.view.ageMs(performance.now())
const stale = (feed: RevocationFeed): Promise<void> =>
  vi.waitFor(() => expect(ageOf(feed)).toBeGreaterThan(boundMs), within)
const fresh = (feed: RevocationFeed): Promise<void> =>
  vi.waitFor(() => expect(ageOf(feed)).toBeLessThan(boundMs / 2), within)

describe('createRedisFeed()', () => {
  test('ages past the bound when Redis is killed, keeps its records, and recovers by itself', async () => {
    await using server = await startRedis()
    const at = scopeOf(server.url)
    const lines: string[] = []
    await using committer = createRedisCommitter(at)
    await using feed = feedOf(at, { lines })
    feed.start()
    await feed.ready
    await committer.commit(draft)
    await server.cli('PUBLISH', revocationChannel(at), 'task:T-2')
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^2:/), within)
    expect(feed.status()).toMatchObject({ records: 2 })

    await server.kill()
    await stale(feed)
    expect(feed.status().connected).toBe(false)
    expect(feed.view.find(['task:T-1'])?.rid).toBe('r1')

    await server.restart()
    await fresh(feed)
    expect(feed.view.find(['task:T-1'])?.rid).toBe('r1')
    expect(feed.view.find(['task:T-2'])?.by).toBe('bare')
    expect(lines.filter((line) => line.startsWith('Redis lost revocations'))).toHaveLength(1)

    // What the store lost it is given back, and the alarm ends.
    await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^2:/), within)
    expect(feed.status()).toMatchObject({ connected: true, records: 2, missingInStore: 0 })
    expect(await committer.list(10)).toHaveLength(2)
    await server.cli('PUBLISH', revocationChannel(at), 'task:T-3')
    await vi.waitFor(() => expect(feed.view.find(['task:T-3'])).toBeDefined(), within)
  })

  test.each([
    ['shortly', 1200],
    ['for so long that connections are dialled to it', 5000],
  ])('ages past the bound when Redis is frozen %s, and recovers by itself', async (_how, ms) => {
    await using server = await startRedis()
    const at = scopeOf(server.url)
    await using feed = feedOf(at)
    feed.start()
    await feed.ready
    server.freeze()
    const frozenAt = performance.now()
    await stale(feed)
    await setTimeout(ms - (performance.now() - frozenAt))
    // Silence is no proof, however it ends: the age counts from before the freeze.
    expect(ageOf(feed)).toBeGreaterThan(performance.now() - frozenAt - 1)
    server.thaw()
    await fresh(feed)
    await server.cli('PUBLISH', revocationChannel(at), 'task:T-1')
    await vi.waitFor(() => expect(feed.view.find(['task:T-1'])).toBeDefined(), within)
  })

  test('counts its age from the question, not from a late answer', async () => {
    await using server = await startRedis()
    const manual = manualClock()
    await using feed = feedOf({ ...scopeOf(server.url), clock: manual }, { syncIntervalMs: 500 })
    feed.start()
    await feed.ready
    server.freeze()
    // A beat is at most 575 ms away: by then its question waits in the frozen server, within its time limit.
    await setTimeout(600)
    manual.advance(10_000)
    server.thaw()
    await setTimeout(100)
    expect(feed.view.ageMs(manual.monotonic())).toBe(10_000)
    await vi.waitFor(() => expect(feed.view.ageMs(manual.monotonic())).toBe(0), within)
  })

  test('finds what was committed while its connection was cut', async () => {
    await using server = await startRedis()
    const at = scopeOf(server.url)
    await using committer = createRedisCommitter(at)
    await using feed = feedOf(at)
    feed.start()
    await feed.ready
    await server.cli('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await committer.commit(draft)
    await vi.waitFor(() => expect(feed.view.find(['task:T-1'])?.rid).toBe('r1'), within)
    await fresh(feed)
    expect(feed.status().connected).toBe(true)
  })

  test('is refused all freshness when it may not subscribe', async () => {
    await using server = await startRedis()
    const lines: string[] = []
    await server.cli('ACL', 'SETUSER', 'default', 'resetchannels')
    await using feed = feedOf(scopeOf(server.url), { lines })
    feed.start()
    await vi.waitFor(() => expect(lines[0]).toContain('NOPERM'), within)
    expect(ageOf(feed)).toBe(Infinity)
    expect(feed.status().connected).toBe(false)
  })

  test('becomes ready when Redis comes up after it', async () => {
    await using server = await startRedis()
    await server.kill()
    await using feed = feedOf(scopeOf(server.url))
    feed.start()
    await setTimeout(300)
    expect(ageOf(feed)).toBe(Infinity)
    await server.restart()
    await feed.ready
    expect(feed.view.epoch).toBe('0:0')
  })

  test('reads the password again for a new connection, and logs neither', async () => {
    const [first, second] = [randomBytes(12).toString('hex'), randomBytes(12).toString('hex')]
    const directory = await mkdtemp(join(tmpdir(), 'chaperone-test-'))
    const passwordFile = join(directory, 'password')
    await writeFile(passwordFile, `${first}\n`)
    await using server = await startRedis(['--requirepass', first])
    const at = scopeOf(server.url)
    const lines: string[] = []
    await using feed = feedOf({ ...at, redis: { ...at.redis, passwordFile } }, { lines })
    feed.start()
    await feed.ready
    const admin = ['--no-auth-warning', '-a', first]
    await server.cli(...admin, 'CONFIG', 'SET', 'requirepass', second)
    await server.cli('--no-auth-warning', '-a', second, 'CLIENT', 'KILL', 'TYPE', 'pubsub')
    await vi.waitFor(() => expect(lines.join('\n')).toContain('WRONGPASS'), within)
    await stale(feed)
    await writeFile(passwordFile, `${second}\n`)
    await fresh(feed)
    expect(lines.join('\n')).not.toMatch(new RegExp(`${first}|${second}`))
    await rm(directory, { recursive: true })
  })
})

describe('createRedisGrantStore()', () => {
  test('rejects by its time limit when Redis is frozen, and does not say what was asked', async () => {
    await using server = await startRedis()
    await using store = createRedisGrantStore(scopeOf(server.url))
    await store.put('T-1', { txn: 'T-1', compact: 'secret.b.c', expiresAtMs: Date.now() + 60_000 })
    server.freeze()
    const asked = performance.now()
    const fault = await store
      .put('T-1', { txn: 'T-1', compact: 'secret.b.c', expiresAtMs: 1 })
      .catch((e: unknown) => e)
    expect(fault).toMatchObject({ code: 'ERR_GRANT_STORE_UNAVAILABLE' })
    expect(performance.now() - asked).toBeLessThan(15_000)
    expect(String(fault)).not.toContain('secret')
    expect(fault).not.toHaveProperty('cause')
    server.thaw()
  })
})
