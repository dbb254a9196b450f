import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { startRedis } from '../kit/redis.ts'
import { startSentinelSet } from '../kit/redis-sentinel.ts'
import { untilTrue } from '../kit/until-true.ts'
import {
  Acknowledged,
  draftOf,
  findDisagreements,
  scopeOf,
  startWatchedFeed,
} from '../kit/watched-feed.ts'

/** The default of `staleAfterWrites`. */
const boundMs = 1_000

describe('createRedisFeed() with Sentinels', { timeout: 120_000 }, () => {
  test('goes stale when the master is killed, and follows the one that replaces it', async () => {
    await using set = await startSentinelSet()
    const at = scopeOf(set.url)
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(at, acknowledged)
    await watched.feed.ready
    await acknowledged.revoke(at, 'task:before')
    await watched.has('task:before')
    watched.oldestMs()

    const old = await set.master()
    await old.kill()
    await acknowledged.revoke(at, 'task:after')
    await set.untilMasterIsNot(old.port)
    await watched.has('task:after')
    await watched.fresh()
    expect(watched.oldestMs()).toBeGreaterThan(boundMs)
    expect(await findDisagreements(watched, { at, acknowledged })).toEqual([])
  })

  test('proves nothing by a master that was deposed while it was frozen', async () => {
    await using set = await startSentinelSet()
    const at = scopeOf(set.url)
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(at, acknowledged)
    const old = await set.master()
    // As if it were cut off together with the old master: nobody tells it of another.
    await using pinned = startWatchedFeed(scopeOf(old.url), acknowledged)
    await Promise.all([watched.feed.ready, pinned.feed.ready])
    await acknowledged.revoke(at, 'task:before')

    old.freeze()
    await set.untilMasterIsNot(old.port)
    await acknowledged.revoke(at, 'task:after')
    await watched.fresh()
    old.thaw()
    await using late = startWatchedFeed(scopeOf(old.url), acknowledged)
    const answered = async (): Promise<boolean> =>
      late.lines.length > 0 || late.ageMs() !== Infinity
    await untilTrue(answered, 'the old master has answered')
    expect(await old.cli('DEL', 'probe')).toMatch(/NOREPLICAS|READONLY/)
    await delay(500)
    expect([...pinned.broken, ...late.broken]).toEqual([])
    expect(pinned.ageMs()).toBeGreaterThan(boundMs)
    expect(late.ageMs()).toBe(Infinity)
    expect(await findDisagreements(watched, { at, acknowledged })).toEqual([])
  })

  test('gives a replica that was promoted behind the record that it lacks', async () => {
    // Nothing keeps this master from acknowledging what no replica has.
    await using set = await startSentinelSet({ replicas: 1, minReplicas: 0 })
    const at = scopeOf(set.url)
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(at, acknowledged)
    await watched.feed.ready
    await acknowledged.revoke(at, 'task:before')
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

    await using committer = createRedisCommitter(at)
    await committer.commit(draftOf('task:lost'))
    expect(await committer.durability({ atLeast: 1 })).toMatchObject({ replicas: 0, connected: 0 })
    await watched.has('task:lost')
    await old.kill()
    await set.untilMasterIsNot(old.port)
    await watched.fresh()
    expect(watched.lines).toContainEqual(expect.stringMatching(/^Redis lost revocations: /))
    expect(watched.feed.view.find(['task:lost'])?.rid).toBe('r-task:lost')
    await acknowledged.revoke(at, 'task:after')
    expect(await findDisagreements(watched, { at, acknowledged })).toEqual([])
    await using reader = createRedisCommitter(at)
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
    expect(watched.ageMs()).toBe(Infinity)
  })
})
