import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'
import { untilTrue } from '../kit/until-true.ts'
import { draftOf, scopeOf } from '../kit/watched-feed.ts'

let master: RedisProcess
let replica: RedisProcess
beforeAll(async () => {
  master = await startRedis(['--repl-diskless-sync-delay', '0'])
  replica = await startRedis(['--replicaof', `127.0.0.1 ${master.port}`])
  await untilTrue(
    async () => (await master.cli('INFO', 'replication')).includes('state=online'),
    'the replica follows',
  )
})
afterAll(async () => {
  await replica[Symbol.asyncDispose]()
  await master[Symbol.asyncDispose]()
})

describe('durability()', () => {
  test('counts the replicas that have the commit, and those that follow', async () => {
    await using committer = createRedisCommitter(scopeOf(master.url))
    await committer.commit(draftOf('task:T-1'))
    expect(await committer.durability({ atLeast: 0 })).toEqual({
      kind: 'known',
      replicas: 1,
      connected: 1,
      // Redis 7.0 has no WAITAOF: nobody knows.
      onDisk: undefined,
    })
  })

  test('waits for a frozen replica no longer than a second, and not in vain for one that thaws', async () => {
    await using committer = createRedisCommitter(scopeOf(master.url))
    replica.freeze()
    await committer.commit(draftOf('task:T-2'))
    const frozen = await committer.durability({ atLeast: 0 })
    expect(frozen).toMatchObject({ kind: 'known', replicas: 0, connected: 1 })
    replica.thaw()
    await untilTrue(async () => {
      const durability = await committer.durability({ atLeast: 1 })
      return durability.kind === 'known' && durability.replicas === 1
    }, 'the replica has caught up')
  })

  test('is as honest for a repetition, which writes nothing, on another connection', async () => {
    replica.freeze()
    for (let time = 0; time < 2; time++) {
      await using committer = createRedisCommitter(scopeOf(master.url))
      await committer.commit(draftOf('task:T-3'))
      expect(await committer.durability({ atLeast: 1 })).toMatchObject({ replicas: 0 })
    }
    replica.thaw()
  })

  test('knows nothing when the connection of the commit has ended', async () => {
    await using committer = createRedisCommitter(scopeOf(master.url))
    expect(await committer.durability({ atLeast: 0 })).toMatchObject({ kind: 'unknown' })
    await committer.commit(draftOf('task:T-4'))
    await master.cli('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await untilTrue(
      async () => (await committer.durability({ atLeast: 0 })).kind === 'unknown',
      'the connection is known to have ended',
    )
    // Another connection is there, and says nothing of what was committed on the first.
    await untilTrue(async () => (await committer.list(1)).length === 1, 'it is connected again')
    expect(await committer.durability({ atLeast: 0 })).toEqual({
      kind: 'unknown',
      why: 'the connection ended',
    })
    await committer.commit(draftOf('task:T-5'))
    expect(await committer.durability({ atLeast: 0 })).toMatchObject({ kind: 'known' })
  })

  test('knows nothing when the user may not ask', async () => {
    await master.cli('ACL', 'SETUSER', 'default', '-wait')
    await using committer = createRedisCommitter(scopeOf(master.url))
    await committer.commit(draftOf('task:T-6'))
    const durability = await committer.durability({ atLeast: 0 })
    await master.cli('ACL', 'SETUSER', 'default', '+wait')
    expect(durability).toMatchObject({ kind: 'unknown', why: expect.stringContaining('NOPERM') })
  })
})
