/**
 * What many records and many sidecars cost: loading, memory, the check of each request, and the time from a commit until
 * the record is in force. `--short` leaves out the longest. Each table row has a process of its own.
 */
import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { cpus, totalmem } from 'node:os'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { RevocationSet } from '../policy/revocation-set.ts'
import { chainSubjects } from '../policy/subject.ts'
import type { Grant, Revocation } from '../policy/types.ts'
import { systemClock as clock } from '../proxy/system-clock.ts'
import { linkHash } from '../revocation/link-hash.ts'
import { createRedisCommitter } from '../revocation/redis-committer.ts'
import { openRedis } from '../revocation/redis-connection.ts'
import { createRedisFeed } from '../revocation/redis-feed.ts'
import { redisKeys } from '../revocation/redis-keys.ts'
import { startRedis, type RedisProcess } from '../test/kit/redis.ts'
import { grant } from '../test/kit/decide-input.ts'
import { names } from '../test/kit/tokens.ts'
import { median, percentile } from './load.ts'

const parts = {
  load: measureLoad,
  check: async (count: string) => measureCheck(Number(count)),
  reach: measureReach,
}
type Part = keyof typeof parts
/** How long the sidecars are left alone to see what their beats cost. */
const restMs = 10_000
const log = { info: () => undefined, warn: () => undefined, error: console.error }

const part = process.argv[2]
if (part === 'load' || part === 'check' || part === 'reach') {
  process.send?.(await parts[part](process.argv[3] ?? '', process.argv[4] ?? ''))
  process.disconnect()
} else await main(process.argv.includes('--short'))

async function main(isShort: boolean): Promise<void> {
  const model = cpus()[0]?.model ?? 'unknown processor'
  const gib = Math.round(totalmem() / 1024 ** 3)
  print(`${cpus().length} x ${model.trim()}, ${gib} GiB, Node ${process.version}\n`)
  const counts = isShort ? [1_000, 100_000] : [1_000, 100_000, 1_000_000]

  print(
    '| records | loaded, ms | of it processor, ms | held, MB | RSS grew by, MB | longest pause, ms | Redis, MB |',
  )
  print('| --- | --- | --- | --- | --- | --- | --- |')
  for (const count of counts) {
    await using redis = await startRedis()
    const redisMb = await seed(redis, count)
    print(`| ${[count, ...(await run('load', redis.url)), redisMb.toFixed(0)].join(' | ')} |`)
  }

  print('\n| records | check, unchanged view, ns | after a change, ns |')
  print('| --- | --- | --- |')
  for (const count of [0, ...counts]) {
    print(`| ${[count, ...(await run('check', String(count)))].join(' | ')} |`)
  }

  print(
    '\n| sidecars | first of all, ms | all, ms | Redis memory each, KB | Redis processor per sync, us |',
  )
  print('| --- | --- | --- | --- | --- |')
  for (const count of isShort ? [1, 100] : [1, 100, 1_000]) {
    await using redis = await startRedis()
    print(`| ${[count, ...(await run('reach', String(count), redis.url))].join(' | ')} |`)
  }
}

/** Runs one measurement in a new process. */
async function run(name: Part, ...args: readonly string[]): Promise<readonly string[]> {
  const child = fork(fileURLToPath(import.meta.url), [name, ...args], { execArgv: ['--expose-gc'] })
  // Killed or failed, it sends nothing.
  const ended = once(child, 'exit').then(() => [])
  const [cells]: unknown[] = await Promise.race([once(child, 'message'), ended])
  if (!Array.isArray(cells)) throw new TypeError('Expected the cells of a row')
  return cells.map(String)
}

function scopeOf(url: string) {
  return { redis: { url, prefix: 'chaperone' }, trustDomain: names.trustDomain, clock }
}

/** Writes the records as the script of a commit would, without its log. Resolves with what Redis needs for them, MB. */
async function seed(server: RedisProcess, count: number): Promise<number> {
  const scope = scopeOf(server.url)
  const keys = redisKeys(scope)
  const redis = openRedis(scope.redis, { commandTimeoutMs: 60_000 })
  await redis.connect()
  const before = await usedMemory(server)
  for (let from = 0; from < count; from += 1_000) {
    const fields: string[] = []
    const expiries: (string | number)[] = []
    for (let n = from + 1; n <= from + 1_000; n++) {
      const { epoch, atMs, ...draft } = makeRecord(n)
      fields.push(draft.rid, JSON.stringify({ n: epoch, atMs, record: draft }))
      expiries.push(draft.expiresAtMs, draft.rid)
    }
    await redis.hset(keys.records, ...fields)
    await redis.zadd(keys.expiry, ...expiries)
  }
  await redis.set(keys.head, `${count}:${linkHash('0', 'bench')}`)
  redis.disconnect()
  return (await usedMemory(server)) - before
}

async function usedMemory(server: RedisProcess): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await server.cli('INFO', 'memory'))?.[1]) / 1e6
}

function makeRecord(n: number): Revocation {
  return {
    rid: randomUUID(),
    op: 'revoke',
    subject: `task:${randomUUID()}`,
    reason: 'wrong customer',
    by: 'oncall@example.org',
    atMs: Date.now(),
    expiresAtMs: Date.now() + 3_600_000 + Math.floor(Math.random() * 36_000_000),
    epoch: n,
  }
}

async function measureLoad(url: string): Promise<readonly string[]> {
  globalThis.gc?.()
  await delay(200)
  const before = process.memoryUsage()
  const stalls = monitorEventLoopDelay({ resolution: 1 })
  await using feed = createRedisFeed({ ...scopeOf(url), syncIntervalMs: 250, log })
  const cpu = process.cpuUsage()
  const from = performance.now()
  stalls.enable()
  feed.start()
  await feed.ready
  stalls.disable()
  const ms = performance.now() - from
  const { user, system } = process.cpuUsage(cpu)
  // The garbage of reading is not what the records take.
  await delay(500)
  globalThis.gc?.()
  await delay(500)
  const after = process.memoryUsage()
  // What the engine keeps of its heap without using it is in the other figure alone.
  const heldMb = (heldBytes(after) - heldBytes(before)) / 1e6
  const grownMb = (after.rss - before.rss) / 1e6
  return [ms, (user + system) / 1000, heldMb, grownMb, stalls.max / 1e6].map((value) =>
    value.toFixed(0),
  )
}

function heldBytes({ heapUsed, arrayBuffers }: NodeJS.MemoryUsage): number {
  return heapUsed + arrayBuffers
}

/**
 * Processor time of a check for a chain of four tasks, which others on the machine do not stretch as much. A change is
 * made before each round, so that every chain is looked up anew.
 */
function measureCheck(count: number): readonly string[] {
  const set = new RevocationSet()
  for (let n = 1; n <= count; n++) set.add(makeRecord(n))
  const chains = Array.from({ length: 200 }, () => chainSubjects(Array.from({ length: 4 }, link)))
  const { epoch: _, ...change } = makeRecord(1)
  const checkAll = (rounds: number): number => {
    const from = process.cpuUsage()
    for (let round = 0; round < rounds; round++) for (const subjects of chains) set.find(subjects)
    const { user, system } = process.cpuUsage(from)
    return ((user + system) * 1000) / rounds / chains.length
  }
  const unchanged: number[] = []
  const changed: number[] = []
  for (let round = 0; round < 200; round++) {
    set.add(change)
    changed.push(checkAll(1))
    unchanged.push(checkAll(500))
    set.drop(change)
  }
  return [unchanged, changed].map((values) => median(values.slice(50)).toFixed(0))
}

function link(): Grant {
  return grant({ txn: randomUUID(), jti: randomUUID() })
}

/** From the call of `commit()` until the first and the last of the feeds, all of this process, has the record in force. */
async function measureReach(count: string, url: string): Promise<readonly string[]> {
  const scope = scopeOf(url)
  await using stack = new AsyncDisposableStack()
  const committer = stack.use(createRedisCommitter(scope))
  const before = await usageOf(url)
  // A thousand feeds of one process that beat four times a second would have no time for anything else.
  const syncIntervalMs = Number(count) > 100 ? 5_000 : 250
  let applied: number[] = []
  for (let n = 0; n < Number(count); n++) {
    const feed = stack.use(createRedisFeed({ ...scope, syncIntervalMs, log }))
    feed.onApplied(() => void applied.push(performance.now()))
    feed.start()
    await feed.ready
  }
  const joined = await usageOf(url)
  await delay(restMs)
  const rested = await usageOf(url)
  const memoryKb = (joined.bytes - before.bytes) / 1000 / Number(count)
  const syncs = (Number(count) * restMs) / syncIntervalMs
  const syncUs = ((rested.cpuSeconds - joined.cpuSeconds) * 1e6) / syncs
  const [first, last]: [number[], number[]] = [[], []]
  const trials = Number(count) > 100 ? 60 : 220
  for (let trial = 0; trial < trials; trial++) {
    applied = []
    const { epoch: _, atMs: __, ...draft } = makeRecord(trial)
    const from = performance.now()
    await committer.commit(draft)
    while (applied.length < Number(count)) await delay(1)
    first.push((applied[0] ?? Number.NaN) - from)
    last.push((applied.at(-1) ?? Number.NaN) - from)
    await delay(20)
  }
  const times = [first, last].map((values) => spread(values.slice(20)))
  return [...times, memoryKb.toFixed(0), syncUs.toFixed(0)]
}

async function usageOf(
  url: string,
): Promise<{ readonly bytes: number; readonly cpuSeconds: number }> {
  const redis = openRedis({ url, prefix: 'chaperone' })
  await redis.connect()
  const info = await redis.info()
  redis.disconnect()
  const read = (name: string): number =>
    Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(info)?.[1])
  const cpuSeconds = read('used_cpu_user') + read('used_cpu_sys')
  return { bytes: read('used_memory'), cpuSeconds }
}

function spread(values: readonly number[]): string {
  const sorted = Float64Array.from(values).toSorted()
  const [p50, p99, most] = [0.5, 0.99, 1].map((share) => percentile(sorted, share).toFixed(1))
  return `p50 ${p50}, p99 ${p99}, most ${most}`
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
