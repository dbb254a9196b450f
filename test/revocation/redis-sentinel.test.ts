import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { startRedis } from '../kit/redis.ts'
import { startSentinelSet, type SentinelSet } from '../kit/redis-sentinel.ts'
import { untilTrue } from '../kit/until-true.ts'
import {
  Acknowledged,
  draftOf,
  scopeOf,
  startWatchedFeed,
  type WatchedFeed,
} from '../kit/watched-feed.ts'

/** The default of `staleAfterWrites`. */
const boundMs = 1_000

const ageOf = ({ feed }: WatchedFeed): number => feed.view.ageMs(performance.now())
const fresh = (watched: WatchedFeed): Promise<void> =>
  untilTrue(async () => ageOf(watched) < boundMs / 2, 'the view is fresh')
const has = ({ feed }: WatchedFeed, subject: string): Promise<void> =>
  untilTrue(async () => feed.view.find([subject]) !== undefined, `${subject} is in force`)

/** Everything that was acknowledged is in force here and, for a sidecar that starts now, in the store. */
async function agrees(set: SentinelSet, acknowledged: Acknowledged, watched: WatchedFeed) {
  await untilTrue(async () => acknowledged.holds(watched.feed), 'all of it is in force')
  await untilTrue(async () => watched.feed.status().missingInStore === 0, 'the store has it')
  await using late = startWatchedFeed(scopeOf(set.url), acknowledged)
  await fresh(late)
  expect(acknowledged.holds(late.feed)).toBe(true)
  expect([...watched.broken, ...late.broken]).toEqual([])
}

describe('createRedisFeed() with Sentinels', { timeout: 120_000 }, () => {
  test('goes stale when the master is killed, and follows the one that replaces it', async () => {
    await using set = await startSentinelSet()
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(scopeOf(set.url), acknowledged)
    await watched.feed.ready
    await acknowledged.revoke(scopeOf(set.url), 'task:before')
    await has(watched, 'task:before')
    watched.oldestMs()

    const old = await set.master()
    await old.kill()
    await acknowledged.revoke(scopeOf(set.url), 'task:after')
    expect((await set.master()).port).not.toBe(old.port)
    await has(watched, 'task:after')
    await fresh(watched)
    expect(watched.oldestMs()).toBeGreaterThan(boundMs)
    await agrees(set, acknowledged, watched)
  })

  test('proves nothing by a master that was deposed while it was frozen', async () => {
    await using set = await startSentinelSet()
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(scopeOf(set.url), acknowledged)
    const old = await set.master()
    // As if it were cut off together with the old master: nobody tells it of another.
    await using pinned = startWatchedFeed(scopeOf(old.url), acknowledged)
    await Promise.all([watched.feed.ready, pinned.feed.ready])
    await acknowledged.revoke(scopeOf(set.url), 'task:before')

    old.freeze()
    await set.untilMasterIsNot(old.port)
    await acknowledged.revoke(scopeOf(set.url), 'task:after')
    await fresh(watched)
    old.thaw()
    await using late = startWatchedFeed(scopeOf(old.url), acknowledged)
    const answered = async (): Promise<boolean> => late.lines.length > 0 || ageOf(late) !== Infinity
    await untilTrue(answered, 'the old master has answered')
    expect(late.lines[0]).toMatch(/NOREPLICAS|READONLY/)
    await delay(500)
    expect([...pinned.broken, ...late.broken]).toEqual([])
    expect(ageOf(pinned)).toBeGreaterThan(boundMs)
    expect(ageOf(late)).toBe(Infinity)
    await agrees(set, acknowledged, watched)
  })

  test('gives a replica that was promoted behind the record that it lacks', async () => {
    // Nothing keeps this master from acknowledging what no replica has.
    await using set = await startSentinelSet({ replicas: 1, minReplicas: 0 })
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(scopeOf(set.url), acknowledged)
    await watched.feed.ready
    await acknowledged.revoke(scopeOf(set.url), 'task:before')
    const old = await set.master()
    const [replica] = set.servers.filter(({ port }) => port !== old.port)
    if (!replica) throw new Error('Expected a replica')
    await untilTrue(
      async () => (await replica.cli('XLEN', '{chaperone}:prod.example.org:log')) === '1',
      'the replica has the first record',
    )
    // It cannot follow its master any more, and the Sentinels still see it.
    await replica.cli('CONFIG', 'SET', 'masteruser', 'nobody', 'masterauth', 'wrong')
    await replica.cli('CLIENT', 'KILL', 'TYPE', 'master')
    await untilTrue(
      async () => (await old.cli('INFO', 'replication')).includes('connected_slaves:0'),
      'the replica is cut off',
    )

    await using committer = createRedisCommitter(scopeOf(set.url))
    await committer.commit(draftOf('task:lost'))
    expect(await committer.durability({ atLeast: 1 })).toMatchObject({ replicas: 0, connected: 0 })
    await has(watched, 'task:lost')
    await old.kill()
    await set.untilMasterIsNot(old.port)
    await fresh(watched)
    expect(watched.lines.filter((line) => line.startsWith('Redis lost'))).toHaveLength(1)
    expect(watched.feed.view.find(['task:lost'])?.rid).toBe('r-task:lost')
    await acknowledged.revoke(scopeOf(set.url), 'task:after')
    await agrees(set, acknowledged, watched)
    await using reader = createRedisCommitter(scopeOf(set.url))
    const rids = (await reader.list(10)).map(({ rid }) => rid)
    expect(rids.toSorted()).toEqual(['r-task:after', 'r-task:before', 'r-task:lost'])
  })

  test('says which Sentinel said what when none knows the master', async () => {
    const configuration = 'sentinel monitor other 127.0.0.1 6379 1'
    await using sentinel = await startRedis(['--sentinel'], { configuration })
    const url = `redis-sentinel://127.0.0.1:${sentinel.port},127.0.0.1:1/mymaster`
    await using watched = startWatchedFeed(scopeOf(url), new Acknowledged())
    await untilTrue(async () => watched.lines.length > 0, 'it complains')
    expect(watched.lines[0]).toContain('Cannot find the master: ')
    expect(watched.lines[0]).toContain(`127.0.0.1:${sentinel.port} knows no master \\"mymaster\\"`)
    expect(watched.lines[0]).toContain('127.0.0.1:1 connect ECONNREFUSED')
    expect(ageOf(watched)).toBe(Infinity)
  })
})
