import { describe, expect, test } from 'vitest'
import type { RedisProcess } from '../kit/redis.ts'
import { startRedisCluster } from '../kit/redis-cluster.ts'
import { startSentinelSet } from '../kit/redis-sentinel.ts'
import { untilTrue } from '../kit/until-true.ts'
import { Acknowledged, findDisagreements, scopeOf, startWatchedFeed } from '../kit/watched-feed.ts'
import { randomOf, type Random } from './schedule.ts'

const rounds = Number(process.env['SOAK_FAILOVERS'] ?? 0)
const seed = Number(process.env['SOAK_SEED'] ?? Date.now() % 1_000_000)
const perRoundMs = 120_000

/** How a master is lost. Resolves when another one is there and the old one follows it. */
type Loss = 'kill' | 'freeze' | 'by choice'
const losses: readonly Loss[] = ['kill', 'freeze', 'by choice']

interface Engine extends AsyncDisposable {
  readonly url: string
  lose(how: Loss): Promise<void>
}

/** Two sidecars follow an engine that loses one master after the other, while records are committed at any moment. */
describe.skipIf(rounds === 0)('soak: failovers un-revoke nothing and converge', () => {
  test.each([
    ['Sentinels', sentinelEngine],
    ['cluster', clusterEngine],
  ] as const)(
    `${rounds} with %s`,
    async (_kind, start) => {
      console.info(`seed ${seed}: repeat with SOAK_SEED=${seed} SOAK_FAILOVERS=${rounds}`)
      const random = randomOf(seed)
      await using engine = await start()
      const at = scopeOf(engine.url)
      const acknowledged = new Acknowledged()
      await using first = startWatchedFeed(at, acknowledged)
      await using second = startWatchedFeed(at, acknowledged)
      const both = [first, second]
      await Promise.all(both.map(({ feed }) => feed.ready))
      const steps: string[] = []
      for (let round = 0; round < rounds; round++) {
        const how = losses[Math.floor(random() * losses.length)] ?? 'kill'
        steps.push(how)
        await Promise.all([engine.lose(how), revokeSome(at, { acknowledged, random, round })])
        await untilTrue(
          async () =>
            both.every(
              ({ feed, ageMs }) =>
                ageMs() < 500 && feed.status().missingInStore === 0 && acknowledged.holds(feed),
            ),
          `both agree after ${steps.join(', ')}`,
        )
        expect({ steps, broken: both.flatMap(({ broken }) => broken) }).toEqual({
          steps,
          broken: [],
        })
      }
      for (const watched of both) {
        expect(await findDisagreements(watched, { at, acknowledged })).toEqual([])
      }
      console.info(`steps: ${steps.join(', ')}`)
    },
    60_000 + rounds * perRoundMs,
  )
})

async function revokeSome(
  at: ReturnType<typeof scopeOf>,
  run: { readonly acknowledged: Acknowledged; readonly random: Random; readonly round: number },
): Promise<void> {
  const count = 1 + Math.floor(run.random() * 4)
  for (let n = 0; n < count; n++) await run.acknowledged.revoke(at, `task:T-${run.round}-${n}`)
}

async function sentinelEngine(): Promise<Engine> {
  const set = await startSentinelSet()
  return {
    url: set.url,
    async lose(how) {
      const old = await set.master()
      if (how === 'by choice') {
        await untilTrue(async () => (await set.failover()) === 'OK', 'a failover is accepted')
      } else await silence(old, how)
      const { port } = await set.untilMasterIsNot(old.port)
      if (how !== 'by choice') await revive(old, how)
      await untilTrue(
        async () => (await old.cli('REPLICAOF', '127.0.0.1', String(port))).startsWith('OK'),
        'the old master follows',
      )
      await untilFollowed(await set.master())
    },
    [Symbol.asyncDispose]: () => set[Symbol.asyncDispose](),
  }
}

async function clusterEngine(): Promise<Engine> {
  const cluster = await startRedisCluster()
  const key = '{chaperone}'
  return {
    url: cluster.url,
    async lose(how) {
      const old = await cluster.ownerOf(key)
      const [replica] = await cluster.replicasOf(old)
      if (!replica) throw new Error('Expected a replica')
      if (how === 'by choice') await cluster.promote(replica)
      else {
        await silence(old, how)
        await untilTrue(
          async () => (await replica.cli('INFO', 'replication')).includes('role:master'),
          'the replica is the master',
        )
        await revive(old, how)
      }
      await untilTrue(
        async () => (await cluster.ownerOf(key)).port === replica.port,
        'every node knows the new owner',
      )
      await untilFollowed(replica)
    },
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  }
}

async function silence(server: RedisProcess, how: 'kill' | 'freeze'): Promise<void> {
  if (how === 'kill') await server.kill()
  else server.freeze()
}

async function revive(server: RedisProcess, how: 'kill' | 'freeze'): Promise<void> {
  if (how === 'kill') await server.restart()
  else server.thaw()
}

async function untilFollowed(master: RedisProcess): Promise<void> {
  await untilTrue(
    async () => (await master.cli('INFO', 'replication')).includes('state=online'),
    'a replica follows the new master',
  )
}
