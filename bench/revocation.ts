import { randomUUID } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { systemClock } from '../proxy/system-clock.ts'
import { createRedisCommitter, type RedisCommitter } from '../revocation/redis-committer.ts'
import { startRedis } from '../test/kit/redis.ts'
import { names } from '../test/kit/tokens.ts'
import { load } from './load.ts'
import { startBenchSidecar, type BenchSidecar } from './sidecar.ts'

/** Milliseconds from the call that commits the revocation, one number per trial. */
export interface RevocationResult {
  readonly refusals: readonly number[]
  /** While other tasks ask as fast as `requestsPerSecond` says. */
  readonly busy: { readonly refusals: readonly number[]; readonly requestsPerSecond: number }
  readonly cuts: readonly CutResult[]
}

export interface CutResult {
  readonly streams: number
  readonly lastClosed: readonly number[]
  readonly lastByte: readonly number[]
}

export interface RevocationPlan {
  readonly upstreamPort: number
  readonly refusalTrials: number
  readonly busyMs: number
  readonly cuts: readonly { readonly streams: number; readonly trials: number }[]
}

/** Revokes tasks in a real Redis while a real sidecar serves them. Rejects when something was not refused or not cut. */
export async function measureRevocation(plan: RevocationPlan): Promise<RevocationResult> {
  await using redis = await startRedis()
  await using committer = createRedisCommitter({
    redis: { url: redis.url, prefix: 'chaperone' },
    trustDomain: names.trustDomain,
    clock: systemClock,
  })
  const { upstreamPort } = plan
  await using sidecar = await startBenchSidecar({ upstreamPort, redisUrl: redis.url })
  const world: World = { committer, sidecar }
  const refusals: number[] = []
  for (let trial = 0; trial < plan.refusalTrials; trial++) {
    refusals.push(await untilRefused(world))
  }
  const busy = await whileBusy(world, plan.busyMs)
  const cuts: CutResult[] = []
  for (const { streams, trials } of plan.cuts) {
    const ends: CutEnd[] = []
    for (let trial = 0; trial < trials; trial++) ends.push(await untilCut(world, streams))
    cuts.push({
      streams,
      lastClosed: ends.map(({ closed }) => closed),
      lastByte: ends.map(({ byte }) => byte),
    })
  }
  return { refusals, busy, cuts }
}

interface World {
  readonly committer: RedisCommitter
  readonly sidecar: BenchSidecar
}

async function revoke({ committer }: World, txn: string): Promise<void> {
  await committer.commit({
    rid: randomUUID(),
    op: 'revoke',
    subject: `task:${txn}`,
    reason: 'benchmark',
    by: 'bench',
    expiresAtMs: systemClock.now() + 3_600_000,
  })
}

const deadlineMs = 10_000
/** Requests of the task that run before it is revoked: its verifications are cached then. */
const warmRequests = 20

/** One connection asks without a pause, and the task is revoked meanwhile. */
async function untilRefused(world: World): Promise<number> {
  const txn = `bench-${randomUUID()}`
  const { sidecar } = world
  const request = sidecar.request('/json', txn)
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const socket = connect({ port: sidecar.port, host: '127.0.0.1', noDelay: true })
  let answers = 0
  let revokedAt = 0
  const start = (): void => {
    revokedAt = performance.now()
    revoke(world, txn).catch(reject)
  }
  socket.on('connect', () => socket.write(request))
  socket.on('error', reject)
  socket.on('data', (chunk: Buffer) => {
    // A small answer leaves in one write, so each begins a chunk; the rest of one is no status line.
    const status = statusOf(chunk)
    if (status === undefined) return
    if (status === 403 && revokedAt > 0) return resolve(performance.now() - revokedAt)
    if (status !== 200) return reject(new Error(`Expected 200, then 403; got ${status}`))
    answers += 1
    if (answers === warmRequests) start()
    socket.write(request)
  })
  try {
    return await before(promise, 'A request of a revoked task was not refused')
  } finally {
    socket.destroy()
  }
}

/** 64 connections that ask every 32 ms: 2000 requests a second, where the machine can. */
async function whileBusy(world: World, durationMs: number): Promise<RevocationResult['busy']> {
  const { port } = world.sidecar
  const request = world.sidecar.request('/json', 'bench-busy')
  const until = performance.now() + durationMs
  const loading = load({ port, request, connections: 64, paceMs: 32, durationMs })
  const refusals: number[] = []
  while (performance.now() < until) refusals.push(await untilRefused(world))
  const { requests, seconds, failures } = await loading
  if (failures > 0)
    throw new Error(`${failures} requests of another task were not answered with 200`)
  return { refusals, requestsPerSecond: requests / seconds }
}

/** When the last stream got its last byte, and when the last one was closed. */
interface CutEnd {
  readonly byte: number
  readonly closed: number
}

async function untilCut(world: World, streams: number): Promise<CutEnd> {
  const txn = `bench-${randomUUID()}`
  const request = world.sidecar.request('/events', txn)
  const flows = Array.from({ length: streams }, () => openFlow(world.sidecar.port, request))
  try {
    await before(Promise.all(flows.map(({ open }) => open)), 'A stream did not begin')
    const from = performance.now()
    const closed = Promise.all(flows.map((flow) => flow.closed))
    await revoke(world, txn)
    await before(closed, 'A stream of a revoked task was not cut')
    return {
      closed: performance.now() - from,
      byte: Math.max(0, ...flows.map((flow) => flow.lastByteAt() - from)),
    }
  } finally {
    for (const { socket } of flows) socket.destroy()
  }
}

interface Flow {
  readonly socket: Socket
  /** Resolves with the first event, rejects on any other answer than 200. */
  readonly open: Promise<void>
  readonly closed: Promise<void>
  lastByteAt(): number
}

function openFlow(port: number, request: Buffer): Flow {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  const open = Promise.withResolvers<void>()
  const closed = Promise.withResolvers<void>()
  let lastByteAt = 0
  let head = ''
  socket.on('connect', () => socket.write(request))
  socket.on('data', (chunk: Buffer) => {
    lastByteAt = performance.now()
    if (head.includes('data:')) return
    head += chunk.toString('latin1')
    if (!head.startsWith('HTTP/1.1 200')) open.reject(new Error(`Expected 200: ${head}`))
    else if (head.includes('data:')) open.resolve()
  })
  // A cut is a reset: the error is what is waited for.
  socket.on('error', () => undefined)
  socket.on('close', () => {
    open.reject(new Error('A stream ended before it was revoked'))
    closed.resolve()
  })
  return { socket, open: open.promise, closed: closed.promise, lastByteAt: () => lastByteAt }
}

function statusOf(chunk: Buffer): number | undefined {
  const match = /^HTTP\/1\.1 (\d{3}) /.exec(chunk.toString('latin1', 0, 16))
  return match ? Number(match[1]) : undefined
}

async function before<T>(promise: Promise<T>, complaint: string): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(complaint)), deadlineMs)
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
