import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Clock } from '../../policy/types.ts'
import type { RevocationDraft } from '../../revocation/feed.ts'
import { readInForce, type InForce } from '../../revocation/in-force.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { openRedis, untilReady } from '../../revocation/redis-connection.ts'
import { redisKeys } from '../../revocation/redis-keys.ts'
import { signLift, verifierOf } from '../kit/lifts.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'
import { signingKey, type SigningKey } from '../kit/tokens.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
let server: RedisProcess
let key: SigningKey
let domains = 0

beforeAll(async () => {
  server = await startRedis()
  key = await signingKey()
})
afterAll(() => server[Symbol.asyncDispose]())

/** A trust domain of its own, so that tests on one server do not meet. */
function scope() {
  const trustDomain = `in-force-${domains++}.example.org`
  const redis = { url: server.url, prefix: 'chaperone' }
  return { redis, trustDomain, clock, verifyLift: verifierOf(key, trustDomain) }
}
type Scope = ReturnType<typeof scope>

async function commit(at: Scope, drafts: readonly Partial<RevocationDraft>[]): Promise<void> {
  await using committer = createRedisCommitter(at)
  const common = { subject: 'task:T-1', reason: 'odd', by: 'ops', expiresAtMs: 0 } as const
  for (const one of drafts) await committer.commit({ rid: 'r1', op: 'revoke', ...common, ...one })
}

async function lift(at: Scope, lifts: readonly string[], signer: SigningKey = key): Promise<void> {
  await using committer = createRedisCommitter(at)
  const rid = crypto.randomUUID()
  const { trustDomain } = at
  const compact = signLift(signer, { trustDomain, claims: { jti: rid, lifts } })
  await committer.commitLift({ rid, lifts, by: '', reason: '', atMs: 0, compact })
}

async function look(at: Scope): Promise<InForce> {
  await using committer = createRedisCommitter(at)
  return await committer.inForce()
}

const rids = ({ records }: InForce): readonly string[] => records.map(({ rid }) => rid)
const anyRecord = (): boolean => true
const many = (from: number, to: number): readonly Partial<RevocationDraft>[] =>
  Array.from({ length: to - from + 1 }, (_, index) => ({ rid: `r${from + index}` }))

describe('inForce()', () => {
  test('finds a record that the log has no more, newest first, without what is lifted or expired', async () => {
    const at = scope()
    await commit(at, [...many(1, 3), { rid: 'gone', expiresAtMs: 1_000 }])
    await lift(at, ['r2'])
    await server.cli('XTRIM', redisKeys(at).log, 'MAXLEN', '0')
    await commit(at, [{ rid: 'r4' }])
    expect(await look(at)).toMatchObject({ unreadable: 0, isCut: false })
    expect(rids(await look(at))).toEqual(['r4', 'r3', 'r1'])
  })

  test('finds what fits among many pages', async () => {
    const at = scope()
    const { records } = redisKeys(at)
    const envelopes = Array.from({ length: 5_000 }, (_, index) => [
      `b${index}`,
      `{"n":${index + 1},"atMs":1,"record":{"rid":"b${index}","op":"pause","subject":"task:B-${index}","reason":"","by":"ops","expiresAtMs":0}}`,
    ])
    await server.cli('HSET', records, ...envelopes.flat())
    await using committer = createRedisCommitter(at)
    const found = await committer.inForce(({ subject }) => subject === 'task:B-7')
    expect(rids(found)).toEqual(['b7'])
    expect((await committer.inForce()).records).toHaveLength(5_000)
  })

  test('counts a lift of nobody as none', async () => {
    const at = scope()
    await commit(at, many(1, 1))
    await lift(at, ['r1'], await signingKey('ES256', { kid: key.kid }))
    expect(rids(await look(at))).toEqual(['r1'])
  })

  test('reads on past what nobody can read, and says how much that was', async () => {
    const at = scope()
    await commit(at, many(1, 1))
    await server.cli('HSET', redisKeys(at).records, 'odd', '{"n":1}')
    expect(await look(at)).toMatchObject({ unreadable: 1, records: [{ rid: 'r1' }] })
  })
})

describe('readInForce()', () => {
  test('keeps the newest of too many and says that there are more', async () => {
    const at = scope()
    await commit(at, many(1, 250))
    const redis = openRedis(at.redis, { commandTimeoutMs: 10_000 })
    try {
      await untilReady(redis, 10_000)
      const options = { ...at, keys: redisKeys(at), fits: anyRecord }
      const cut = await readInForce(redis, { ...options, limit: 2 })
      expect([rids(cut), cut.isCut]).toEqual([['r250', 'r249'], true])
      const whole = await readInForce(redis, { ...options, limit: 250 })
      expect([whole.records.length, whole.isCut]).toEqual([250, false])
    } finally {
      redis.disconnect()
    }
  })
})
