import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Clock } from '../../policy/types.ts'
import { awaitEnforcement, type Enforcement } from '../../revocation/enforcement.ts'
import type { Committed } from '../../revocation/feed.ts'
import { readFleet } from '../../revocation/fleet.ts'
import { createPresenceReader } from '../../revocation/presence-reader.ts'
import { createPresence, type Presence, type PresenceSource } from '../../revocation/presence.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { redisKeys } from '../../revocation/redis-keys.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
const log = { warn: () => undefined }
const poll = { timeout: 30_000, interval: 20 }
let server: RedisProcess
let domains = 0

beforeAll(async () => {
  server = await startRedis()
})
afterAll(() => server[Symbol.asyncDispose]())

/** A trust domain of its own, so that tests on one server do not meet. */
function scope() {
  const trustDomain = `presence-${domains++}.example.org`
  return { redis: { url: server.url, prefix: 'chaperone' }, trustDomain, clock, log }
}

type Report = ReturnType<PresenceSource['report']>

function source(instance: string, changes: () => Partial<Report> = () => ({})): PresenceSource {
  return {
    instance,
    liveTasks: () =>
      new Map([
        ['T-1', { exchanges: 2 }],
        ['T-1.1', { exchanges: 1, parent: 'T-1' }],
      ]),
    report: () => ({
      version: '0.1.0',
      policySha: 'abc',
      position: '0:0',
      exchanges: 2,
      ageMs: 10,
      ready: true,
      staleAfterReadsMs: 2_000,
      staleAfterStreamsMs: 10_000,
      ...changes(),
    }),
  }
}

async function started(at: ReturnType<typeof scope>, from: PresenceSource): Promise<Presence> {
  const presence = createPresence(at)
  presence.start(from)
  const { seen } = redisKeys(at)
  await expect.poll(() => server.cli('ZSCORE', seen, from.instance), poll).not.toBe('')
  return presence
}

async function commit(at: ReturnType<typeof scope>, rid: string): Promise<Committed> {
  await using committer = createRedisCommitter(at)
  const common = { reason: 'runaway', by: 'ops', expiresAtMs: 0 }
  return await committer.commit({ rid, op: 'revoke', subject: 'task:T-1', ...common })
}

async function enforcement(
  at: ReturnType<typeof scope>,
  committed: Committed,
  { rid = 'r1', waitMs = 0 } = {},
): Promise<Enforcement> {
  await using reader = createPresenceReader(at)
  const committedFromMs = clock.monotonic()
  return await awaitEnforcement(reader, { rid, committed, committedFromMs, waitMs, clock })
}

const ack = (rid: string, committed: Committed) => ({
  rid,
  recordedAtMs: committed.atMs,
  cut: 3,
  dropped: 2,
  tookMs: 0.5,
})

describe('createPresence()', () => {
  test('writes a row that readers find, and takes it away at disposal', async () => {
    const at = scope()
    await using reader = createPresenceReader(at)
    const presence = await started(at, source('a'))
    await expect
      .poll(async () => (await reader.read({ liveTasks: true })).sidecars, poll)
      .toMatchObject([
        {
          instance: 'a',
          silent: false,
          live: new Map([
            ['T-1', { exchanges: 2 }],
            ['T-1.1', { exchanges: 1, parent: 'T-1' }],
          ]),
          row: { version: '0.1.0', policySha: 'abc', exchanges: 2, ageMs: 10, cut: 0 },
        },
      ])
    await presence[Symbol.asyncDispose]()
    expect((await reader.read()).sidecars).toEqual([])
    const { sidecars, live } = redisKeys(at)
    expect(await server.cli('EXISTS', sidecars, live)).toBe('0')
  })

  test('acknowledges long before the next beat', async () => {
    const at = scope()
    await using presence = await started(at, source('a'))
    // The best of some: a slow machine may hold up any of them, never all, and beats are a second apart.
    const tookMs: number[] = []
    for (let n = 0; n < 10 && !tookMs.some((ms) => ms < 500); n++) {
      const committed = await commit(at, `r${n}`)
      const fromMs = performance.now()
      presence.enforced([ack(`r${n}`, committed)])
      await enforcement(at, committed, { rid: `r${n}`, waitMs: 30_000 })
      tookMs.push(performance.now() - fromMs)
    }
    expect(Math.min(...tookMs)).toBeLessThan(500)
  })

  test('sends what comes at once together', async () => {
    const at = scope()
    await using presence = await started(at, source('a'))
    const committed = await commit(at, 'r1')
    for (let n = 0; n < 200; n++) presence.enforced([ack(n === 199 ? 'r1' : `r-${n}`, committed)])
    const { confirmed } = await enforcement(at, committed, { waitMs: 30_000 })
    expect(confirmed).toMatchObject([{ instance: 'a', cut: 3, dropped: 2, tookMs: 0.5 }])
    expect(Number(await server.cli('XLEN', redisKeys(at).acks))).toBeLessThanOrEqual(2)
    await using reader = createPresenceReader(at)
    // Bounded: the last 64 stand for 200.
    expect(await reader.acknowledgements(committed.atMs)).toHaveLength(64)
    expect((await reader.read()).sidecars).toMatchObject([{ row: { cut: 600 } }])
  })

  test('writes at most 20 times a second however often it is told', async () => {
    const at = scope()
    await using presence = await started(at, source('a'))
    const committed = await commit(at, 'r1')
    const untilMs = performance.now() + 500
    while (performance.now() < untilMs) {
      presence.enforced([ack('r1', committed)])
      await delay(2)
    }
    const elapsedMs = performance.now() - untilMs + 500
    const written = Number(await server.cli('XLEN', redisKeys(at).acks))
    expect(written).toBeGreaterThan(0)
    expect(written).toBeLessThanOrEqual(elapsedMs / 50 + 1)
  })

  test('says everything again to a store that was emptied, and keeps unsaid acknowledgements', async () => {
    await using own = await startRedis()
    const at = { ...scope(), redis: { url: own.url, prefix: 'chaperone' } }
    const presence = createPresence(at)
    await using _ = presence
    presence.start(source('a'))
    const { seen, live } = redisKeys(at)
    await expect.poll(() => own.cli('ZSCORE', seen, 'a'), poll).not.toBe('')
    // It is on its way to a server that never reads it.
    own.freeze()
    presence.enforced([{ rid: 'r1', recordedAtMs: 1, cut: 1, dropped: 0, tookMs: 0 }])
    await delay(100)
    await own.restart()
    await using reader = createPresenceReader(at)
    await expect
      .poll(() => reader.acknowledgements(0), poll)
      .toMatchObject([{ rid: 'r1', instance: 'a' }])
    await expect.poll(() => own.cli('HGET', live, 'a'), poll).toBe('{"T-1":2,"T-1.1":[1,"T-1"]}')
  })

  test('forgets rows that nobody wrote for six minutes', async () => {
    const at = scope()
    const { seen, sidecars } = redisKeys(at)
    await server.cli('HSET', sidecars, 'gone', '{}')
    await server.cli('ZADD', seen, String(Date.now() - 361_000), 'gone')
    await using _presence = await started(at, source('a'))
    expect(await server.cli('HKEYS', sidecars)).toBe('a')
    expect(await server.cli('ZRANGE', seen, '0', '-1')).toBe('a')
  })
})

describe('awaitEnforcement()', () => {
  test('takes a position at or past the commit, of the same history alone', async () => {
    const at = scope()
    const first = await commit(at, 'r1')
    const second = await commit(at, 'r2')
    await using _at = await started(
      at,
      source('at', () => ({ position: first.epoch })),
    )
    await using _past = await started(
      at,
      source('past', () => ({ position: second.epoch })),
    )
    await using _fork = await started(
      at,
      source('fork', () => ({ position: '1:abc' })),
    )
    await using _ahead = await started(
      at,
      source('ahead', () => ({ position: '2:abc' })),
    )
    await using _new = await started(
      at,
      source('new', () => ({ position: '-' })),
    )
    const { confirmed, unconfirmed } = await enforcement(at, first)
    expect(confirmed.map(({ instance }) => instance).toSorted()).toEqual(['at', 'past'])
    expect(unconfirmed.map(({ instance }) => instance).toSorted()).toEqual(['ahead', 'fork', 'new'])
    expect(unconfirmed[0]?.closedByMs).toEqual({
      reads: first.atMs + 2_000,
      streams: first.atMs + 10_000,
    })
  })

  test('does not take the acknowledgement of another record of that name', async () => {
    const at = scope()
    await using presence = await started(at, source('a'))
    const committed = await commit(at, 'r1')
    presence.enforced([{ ...ack('r1', committed), recordedAtMs: committed.atMs - 1 }])
    presence.enforced([ack('r2', committed)])
    await expect.poll(() => server.cli('XLEN', redisKeys(at).acks), poll).toBe('1')
    const { confirmed, unconfirmed } = await enforcement(at, committed)
    expect(confirmed).toEqual([])
    expect(unconfirmed).toMatchObject([{ instance: 'a' }])
  })

  test('does not wait for one that is silent, and names it', async () => {
    const at = scope()
    const committed = await commit(at, 'r1')
    await using _presence = await started(
      at,
      source('a', () => ({ position: committed.epoch })),
    )
    const { seen, sidecars } = redisKeys(at)
    await server.cli('HSET', sidecars, 'dead', await server.cli('HGET', sidecars, 'a'))
    await server.cli('HSET', sidecars, 'odd', 'not a row')
    const seenMs = Date.now() - 4_000
    await server.cli('ZADD', seen, String(seenMs), 'dead', String(seenMs), 'odd')
    await using reader = createPresenceReader(at)
    // Its row says that it has the record already: it had it before it fell silent.
    expect((await enforcement(at, committed, { waitMs: 60_000 })).unconfirmed).toEqual([
      { instance: 'odd', host: '?', seenMs },
    ])
    const next = await commit(at, 'r2')
    const later = await enforcement(at, next, { rid: 'r2' })
    expect(later.unconfirmed.map(({ instance }) => instance)).toContain('dead')
    const states = (await readFleet(reader, { clock, graceMs: 0 })).sidecars
    expect(Object.fromEntries(states.map(({ instance, state }) => [instance, state]))).toEqual({
      a: 'behind',
      dead: 'silent',
      odd: 'silent',
    })
  })

  test('rejects when the store does not answer', async () => {
    await using own = await startRedis()
    const at = { ...scope(), redis: { url: own.url, prefix: 'chaperone' } }
    await using reader = createPresenceReader(at)
    await reader.read()
    await own.kill()
    await expect(reader.read()).rejects.toMatchObject({ code: 'ERR_REVOCATION_STORE_UNAVAILABLE' })
  })
})

describe('readFleet()', () => {
  test.each([
    ['ok', {}],
    ['not-ready', { ready: false }],
    ['forked', { position: '1:abc' }],
    ['forked', { position: '9:abc' }],
    ['behind', { position: '-' }],
    ['stale', { ageMs: 2_001 }],
    ['stale', { ageMs: -1 }],
  ] as const)('calls a sidecar %s when its row says %j', async (state, changes) => {
    const at = scope()
    const { epoch } = await commit(at, 'r1')
    await using _presence = await started(
      at,
      source('a', () => ({ position: epoch, ...changes })),
    )
    await using reader = createPresenceReader(at)
    const fleet = await readFleet(reader, { clock, graceMs: 0 })
    expect(fleet).toMatchObject({ head: epoch, records: 1, sidecars: [{ instance: 'a', state }] })
  })

  test('gives one that lags a beat the time to catch up', async () => {
    const at = scope()
    let position = '0:0'
    await using _presence = await started(
      at,
      source('a', () => ({ position })),
    )
    const { epoch } = await commit(at, 'r1')
    await using reader = createPresenceReader(at)
    const read = readFleet(reader, { clock, graceMs: 10_000 })
    await vi.waitFor(() => (position = epoch))
    expect((await read).sidecars).toMatchObject([{ state: 'ok' }])
  })
})
