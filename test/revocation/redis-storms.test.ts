import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import type { Clock } from '../../policy/types.ts'
import type { RevocationDraft, RevocationFeed } from '../../revocation/feed.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { openRedis } from '../../revocation/redis-connection.ts'
import { createRedisFeed } from '../../revocation/redis-feed.ts'
import { revocationChannel } from '../../revocation/redis-keys.ts'
import { manualClock } from '../kit/manual-clock.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
const silent = { info: () => undefined, warn: () => undefined, error: () => undefined }
const boundMs = 1_000
const within = { timeout: 30_000, interval: 20 }
const timeoutMs = 90_000

function scopeOf(port: number, at: Clock = clock) {
  const redis = { url: `redis://127.0.0.1:${port}`, prefix: 'chaperone' }
  return { redis, trustDomain: 'prod.example.org', clock: at }
}

function feedOf(scope: ReturnType<typeof scopeOf>): RevocationFeed {
  return createRedisFeed({ ...scope, syncIntervalMs: 100, log: silent })
}

function draft(n: number, more: Partial<RevocationDraft> = {}): RevocationDraft {
  const said = { reason: 'x'.repeat(1_000), by: 'op@example.org', expiresAtMs: 0 }
  return { rid: `r${n}`, op: 'revoke', subject: `task:T-${n}`, ...said, ...more }
}

const ageOf = (feed: RevocationFeed): number => feed.view.ageMs(performance.now())
const fresh = (feed: RevocationFeed): Promise<void> =>
  vi.waitFor(() => expect(ageOf(feed)).toBeLessThan(boundMs), within)
const holds = (feed: RevocationFeed, ...numbers: readonly number[]): void => {
  for (const n of numbers) expect(feed.view.find([`task:T-${n}`])?.rid).toBe(`r${n}`)
}

test(
  'a sidecar that the server throws off for reading too much at once learns it in smaller replies',
  async () => {
    await using server = await startRedis()
    const scope = scopeOf(server.port)
    await using committer = createRedisCommitter(scope)
    for (let n = 0; n < 400; n++) await committer.commit(draft(n))
    // All of it is about 500 KB: ten replies of the size that the server sends, and more than it keeps for one.
    await server.cli('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 100kb 0 0')
    await using feed = feedOf(scope)
    feed.start()
    await feed.ready
    holds(feed, 0, 200, 399)
    expect(feed.status().records).toBe(400)
    // And it is thrown off again, as a slow reader of messages is.
    await server.cli('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await committer.commit(draft(400))
    await vi.waitFor(() => holds(feed, 0, 399, 400), within)
    await fresh(feed)
  },
  timeoutMs,
)

test(
  'a revocation bites in a storm of 20,000 messages, and the event loop has its turn',
  async () => {
    await using server = await startRedis()
    const scope = scopeOf(server.port)
    await using committer = createRedisCommitter(scope)
    await using feed = feedOf(scope)
    feed.start()
    await feed.ready
    const stalls = monitorEventLoopDelay({ resolution: 5 })
    stalls.enable()
    const storm = storms(server, revocationChannel(scope))
    const committed = committer.commit(draft(1))
    await vi.waitFor(() => holds(feed, 1), within)
    await committed
    await storm
    stalls.disable()
    // A message costs microseconds: 20,000 of them at once would take longer than this.
    expect(stalls.max / 1e6).toBeLessThan(5_000)
    await vi.waitFor(() => expect(feed.status().malformed).toBeGreaterThanOrEqual(6_600), within)
    holds(feed, 1)
    expect(feed.view.find(['task:forged-13'])).toBeDefined()
    expect(feed.view.find(['task:bare-8'])).toBeDefined()
    await fresh(feed)
  },
  timeoutMs,
)

/** In turn: one that cannot be read, one of the shape of a commit that was none, and a bare one of few subjects. */
async function storms(server: RedisProcess, channel: string): Promise<void> {
  const redis = openRedis({ url: server.url, prefix: 'chaperone' }, { commandTimeoutMs: 60_000 })
  redis.on('error', () => undefined)
  await redis.connect()
  const kinds = [
    (n: number) => `{"n":${n},"atMs":1,"record":`,
    (n: number) =>
      JSON.stringify({ n: n + 1e6, atMs: 1, record: draft(n, { subject: `task:forged-${n}` }) }),
    (n: number) => `task:bare-${n % 30} storm`,
  ]
  for (let from = 0; from < 20_000; from += 500) {
    const batch = Array.from({ length: 500 }, (_, at) => from + at)
    await Promise.all(batch.map((n) => redis.publish(channel, kinds[n % 3]?.(n) ?? '')))
  }
  redis.disconnect()
}

test(
  'a server that is restored from an old dump gives up nothing, and gets back what it lost',
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'chaperone-rdb-'))
    await using server = await startRedis(['--dir', directory, '--dbfilename', 'now.rdb'])
    const scope = scopeOf(server.port)
    await using committer = createRedisCommitter(scope)
    await using feed = feedOf(scope)
    feed.start()
    await feed.ready
    await committer.commit(draft(1))
    await server.cli('SAVE')
    await copyFile(join(directory, 'now.rdb'), join(directory, 'old.rdb'))
    await committer.commit(draft(2))
    await committer.commit(draft(3))
    await vi.waitFor(() => holds(feed, 1, 2, 3), within)
    await server.kill()
    await copyFile(join(directory, 'old.rdb'), join(directory, 'now.rdb'))
    await server.restart()
    await vi.waitFor(() => {
      holds(feed, 1, 2, 3)
      expect(feed.view.epoch).toMatch(/^3:/)
      expect(feed.status().missingInStore).toBe(0)
    }, within)
    expect((await committer.list(10)).map(({ rid }) => rid).toSorted()).toEqual(['r1', 'r2', 'r3'])
    await using late = feedOf(scope)
    late.start()
    await late.ready
    holds(late, 1, 2, 3)
    await rm(directory, { recursive: true })
  },
  timeoutMs,
)

test(
  'a partition that swallows bytes both ways makes the view old, and what was revoked meanwhile is found',
  async () => {
    await using server = await startRedis()
    await using cable = await startCable(server.port)
    await using committer = createRedisCommitter(scopeOf(server.port))
    await using feed = feedOf(scopeOf(cable.port))
    feed.start()
    await feed.ready
    await committer.commit(draft(1))
    await vi.waitFor(() => holds(feed, 1), within)
    cable.cut()
    await delay(50)
    const cutAtMs = performance.now()
    await committer.commit(draft(2))
    while (performance.now() - cutAtMs < 2 * boundMs) {
      // Silence makes no view younger, whatever was asked.
      expect(ageOf(feed)).toBeGreaterThanOrEqual(performance.now() - cutAtMs - 5)
      holds(feed, 1)
      await delay(20)
    }
    cable.mend()
    await fresh(feed)
    holds(feed, 1, 2)
  },
  timeoutMs,
)

test(
  "a server's clock that leaps ahead ends no record, and our own clock ends none either",
  async () => {
    await using server = await startRedis()
    const manual = manualClock()
    await using cable = await startCable(server.port)
    await using committer = createRedisCommitter(scopeOf(server.port))
    await using feed = feedOf(scopeOf(cable.port, manual))
    feed.start()
    await feed.ready
    await committer.commit(draft(1, { expiresAtMs: Date.now() + 3_600_000 }))
    await vi.waitFor(() => holds(feed, 1), within)
    cable.shiftTime(7_200)
    const { epoch } = feed.view
    await committer.commit(draft(2))
    await vi.waitFor(() => expect(feed.view.epoch).not.toBe(epoch), within)
    await delay(400)
    holds(feed, 1, 2)
    cable.shiftTime(0)
  },
  timeoutMs,
)

/** A relay of bytes to Redis. Cut, it swallows them and closes nothing. */
async function startCable(port: number) {
  let isCut = false
  let shiftSeconds = 0
  const sockets = new Set<Socket>()
  const server = createServer((inward) => {
    const outward = connect(port, '127.0.0.1')
    for (const socket of [inward, outward]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => sockets.delete(socket))
    }
    inward.on('data', (chunk) => void (isCut || outward.write(chunk)))
    outward.on('data', (chunk) => void (isCut || inward.write(shifted(chunk, shiftSeconds))))
    inward.on('close', () => outward.destroy())
    outward.on('close', () => void (isCut || inward.destroy()))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('Expected a port')
  return {
    port: address.port,
    cut: () => void (isCut = true),
    /** What was swallowed stays lost, so the connections of that time are of no use. */
    mend: () => {
      isCut = false
      for (const socket of sockets) socket.destroy()
    },
    shiftTime: (seconds: number) => void (shiftSeconds = seconds),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

/** The answer to TIME is a pair of bulk strings: ten digits of seconds and those of microseconds. */
function shifted(chunk: Buffer, seconds: number): Buffer {
  if (seconds === 0) return chunk
  const text = chunk.toString('latin1')
  const moved = text.replace(
    /\*2\r\n\$10\r\n(\d{10})\r\n/g,
    (_, digits: string) => `*2\r\n$10\r\n${Number(digits) + seconds}\r\n`,
  )
  return Buffer.from(moved, 'latin1')
}
