import { describe, expect, test, vi } from 'vitest'
import type { Clock } from '../../policy/types.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { createRedisFeed, type FeedLog } from '../../revocation/redis-feed.ts'
import { startRedis } from '../kit/redis.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
const within = { timeout: 30_000, interval: 20 }

describe('createRedisFeed()', () => {
  test('tells that a record is missing when the store lost it before a sync had shown it', async () => {
    await using server = await startRedis()
    const redis = { url: server.url, prefix: 'chaperone' }
    const at = { redis, trustDomain: 'lost.example.org', clock }
    const error = vi.fn<FeedLog['error']>()
    const log: FeedLog = { info: () => undefined, warn: () => undefined, error }
    // Far apart: only the message brings the record, as when a replica without it takes over.
    await using feed = createRedisFeed({ ...at, syncIntervalMs: 10_000, log })
    feed.start()
    await feed.ready
    await using committer = createRedisCommitter(at)
    const draft = { rid: 'r1', subject: 'task:T-1', reason: 'drill', by: 'ops', expiresAtMs: 0 }
    await committer.commit({ ...draft, op: 'revoke' })
    await vi.waitFor(() => expect(feed.status().records).toBe(1), within)
    expect(feed.view.epoch).toBe('0:0')

    await server.restart()
    await vi.waitFor(() => expect(error).toHaveBeenCalled(), within)
    expect(feed.view.find(['task:T-1'])?.rid).toBe('r1')
    expect(error).toHaveBeenCalledWith(
      expect.objectContaining({ missing: 1 }),
      expect.stringContaining('Redis lost revocations'),
    )
    await vi.waitFor(
      async () => expect(await committer.list(1)).toMatchObject([{ rid: 'r1' }]),
      within,
    )
    expect(feed.status().missingInStore).toBe(0)
  })
})
