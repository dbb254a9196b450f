import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createRedisCheckpoints } from '../../revocation/redis-checkpoints.ts'
import { redisKeys } from '../../revocation/redis-keys.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'

let server: RedisProcess
let domains = 0
beforeAll(async () => {
  server = await startRedis()
})
afterAll(() => server[Symbol.asyncDispose]())

/** A trust domain of its own, so that tests on one server do not meet. */
function scope() {
  const trustDomain = `checkpoints-${domains++}.example.org`
  return { redis: { url: server.url, prefix: 'chaperone' }, trustDomain }
}

const body = (seq: number) => ({ seq, hash: String(seq).repeat(64), sig: 'a.b.c' })
const sha1 = (text: string): string => createHash('sha1').update(text).digest('hex')

describe('createRedisCheckpoints()', () => {
  test('keeps the last one of each process, each linked to the one before of the fleet', async () => {
    await using store = createRedisCheckpoints(scope())
    expect(await store.read()).toEqual({ head: '0:0', checkpoints: [] })
    const first = await store.put({ instance: 'a', ...body(1) })
    expect(first).toBe(`1:${sha1(`0a${JSON.stringify(body(1))}`)}`)
    const second = await store.put({ instance: 'b', ...body(2) })
    expect(second).toBe(`2:${sha1(`${first.slice(2)}b${JSON.stringify(body(2))}`)}`)
    const third = await store.put({ instance: 'a', ...body(3) })
    expect(await store.read()).toEqual({
      head: third,
      checkpoints: expect.toSatisfy((found: readonly object[]) => {
        expect(found).toHaveLength(2)
        expect(found).toContainEqual(
          expect.objectContaining({ instance: 'a', fleet: third, ...body(3) }),
        )
        expect(found).toContainEqual(
          expect.objectContaining({ instance: 'b', fleet: second, ...body(2) }),
        )
        return true
      }),
    })
  })

  test('forgets what is older than 90 days, and the oldest beyond 10,000', async () => {
    const at = scope()
    const { checkpoints, checkpointsSeen } = redisKeys(at)
    await using store = createRedisCheckpoints(at)
    await store.put({ instance: 'old', ...body(1) })
    await store.put({ instance: 'young', ...body(2) })
    await server.cli(
      'ZADD',
      checkpointsSeen,
      String(Date.now() - 90 * 24 * 3_600_000 - 1000),
      'old',
    )
    await store.put({ instance: 'new', ...body(3) })
    expect((await store.read()).checkpoints.map(({ instance }) => instance).toSorted()).toEqual([
      'new',
      'young',
    ])
    const fill = `local now = redis.call('ZSCORE', KEYS[1], 'new')
      for n = 1, 9999 do redis.call('ZADD', KEYS[1], now - 10, 'x' .. n) end`
    await server.cli('EVAL', fill, '1', checkpointsSeen)
    await store.put({ instance: 'last', ...body(4) })
    expect(await server.cli('ZCARD', checkpointsSeen)).toBe('10000')
    expect(await server.cli('HEXISTS', checkpoints, 'last')).toBe('1')
  })

  test('rejects and says no more when the store is not there or holds something else', async () => {
    const at = scope()
    const { checkpoints } = redisKeys(at)
    await using store = createRedisCheckpoints(at)
    await server.cli('HSET', checkpoints, 'a', '{"seq":1}')
    await expect(store.read()).rejects.toMatchObject({
      code: 'ERR_REVOCATION_STORE_REPLY',
      message: 'Cannot read the checkpoints in Redis',
    })
    await using absent = createRedisCheckpoints({
      redis: { url: 'redis://127.0.0.1:1', prefix: 'chaperone' },
      trustDomain: 'example.org',
    })
    await expect(absent.put({ instance: 'a', ...body(1) })).rejects.toMatchObject({
      code: 'ERR_REVOCATION_STORE_UNAVAILABLE',
    })
  })
})
