import { describe, expect, test } from 'vitest'
import { createPresence } from '../../revocation/presence.ts'
import { createPresenceReader } from '../../revocation/presence-reader.ts'
import { createRedisGrantStore } from '../../revocation/redis-grant-store.ts'
import { startRedisCluster } from '../kit/redis-cluster.ts'
import { untilTrue } from '../kit/until-true.ts'
import { Acknowledged, findDisagreements, scopeOf, startWatchedFeed } from '../kit/watched-feed.ts'

/** The default of `staleAfterWrites`. */
const boundMs = 1_000
/** All our keys have its slot. */
const tag = '{chaperone}'

describe('createRedisFeed() on a cluster', { timeout: 120_000 }, () => {
  test('follows the slot to its new owner, by choice and after a kill -9', async () => {
    await using cluster = await startRedisCluster()
    const at = scopeOf(cluster.url)
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(at, acknowledged)
    await watched.feed.ready
    await acknowledged.revoke(at, 'task:before')
    await watched.has('task:before')

    const first = await cluster.ownerOf(tag)
    const [replica] = await cluster.replicasOf(first)
    if (!replica) throw new Error('Expected a replica')
    await cluster.promote(replica)
    await acknowledged.revoke(at, 'task:by-choice')
    await watched.has('task:by-choice')
    await watched.fresh()
    await untilTrue(
      async () => (await cluster.replicasOf(replica)).length === 1,
      'the old owner follows it',
    )

    watched.oldestMs()
    await replica.kill()
    await acknowledged.revoke(at, 'task:after-the-kill')
    await watched.has('task:after-the-kill')
    await watched.fresh()
    expect(watched.oldestMs()).toBeGreaterThan(boundMs)
    expect(await findDisagreements(watched, { at, acknowledged })).toEqual([])
  })

  test('refuses while its slot is migrated, and follows it', async () => {
    await using cluster = await startRedisCluster()
    const at = scopeOf(cluster.url)
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(at, acknowledged)
    await watched.feed.ready
    await acknowledged.revoke(at, 'task:before')
    const from = await cluster.ownerOf(tag)
    const to = cluster.nodes.slice(0, 3).find((node) => node !== from)
    if (!to) throw new Error('Expected another master')
    await cluster.moveSlot(tag, {
      from,
      to,
      during: () => untilTrue(async () => watched.ageMs() > boundMs, 'the view is stale'),
    })
    await acknowledged.revoke(at, 'task:after')
    await watched.has('task:after')
    await watched.fresh()
    expect(await findDisagreements(watched, { at, acknowledged })).toEqual([])
  })

  test('is left by an owner that was frozen, and everything else of a sidecar works there too', async () => {
    await using cluster = await startRedisCluster()
    const at = scopeOf(cluster.url)
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(at, acknowledged)
    await using grants = createRedisGrantStore(at)
    await using presence = createPresence({ ...at, log: { warn: () => undefined } })
    await using reader = createPresenceReader(at)
    await watched.feed.ready
    presence.start({
      instance: 'i-1',
      report: () => ({
        version: '0',
        policySha: 'p',
        position: watched.feed.view.epoch,
        ageMs: 1,
        exchanges: 0,
        ready: true,
        staleAfterReadsMs: 2_000,
        staleAfterStreamsMs: 10_000,
      }),
      liveTasks: () => new Map(),
    })
    await acknowledged.revoke(at, 'task:before')
    const works = async (txn: string): Promise<boolean> => {
      await grants.put(txn, { txn, compact: 'a.b.c', expiresAtMs: Date.now() + 60_000 })
      const { sidecars } = await reader.read()
      return (await grants.get(txn)) === 'a.b.c' && sidecars.some(({ silent }) => !silent)
    }
    await untilTrue(() => works('T-1'), 'grants and presence work')

    const old = await cluster.ownerOf(tag)
    const asked = { except: [old] }
    old.freeze()
    await untilTrue(
      async () => (await cluster.ownerOf(tag, asked)).port !== old.port,
      'another node owns the slot',
    )
    await acknowledged.revoke(at, 'task:after')
    old.thaw()
    await watched.has('task:after')
    await watched.fresh()
    await untilTrue(() => works('T-2'), 'grants and presence work on the new owner')
    expect(await findDisagreements(watched, { at, acknowledged })).toEqual([])
  })
})
