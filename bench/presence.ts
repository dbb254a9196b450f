import { randomUUID } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { systemClock as clock } from '../proxy/system-clock.ts'
import { awaitEnforcement } from '../revocation/enforcement.ts'
import { createPresenceReader } from '../revocation/presence-reader.ts'
import { createPresence } from '../revocation/presence.ts'
import { createRedisCommitter } from '../revocation/redis-committer.ts'
import { createRedisFeed } from '../revocation/redis-feed.ts'
import { startRedis, type RedisProcess } from '../test/kit/redis.ts'
import { names } from '../test/kit/tokens.ts'

export interface PresenceResult {
  readonly sidecars: number
  /** Of one sidecar in one second, at rest: its feed alone, and with its row. */
  readonly feed: Cost
  readonly both: Cost
  /** Of one sidecar for one revocation, with its acknowledgement. */
  readonly revocation: Cost
  /** Milliseconds from `commit()` until the last sidecar's acknowledgement was read, one per trial. */
  readonly lastAcknowledged: readonly number[]
}

/** Commands that clients sent, and bytes to and from Redis. */
export interface Cost {
  readonly commands: number
  readonly bytesIn: number
  readonly bytesOut: number
}

/** Real feeds and rows in this process, against a Redis of their own. */
export async function measurePresence(
  sidecars: number,
  { restMs, trials }: { readonly restMs: number; readonly trials: number },
): Promise<PresenceResult> {
  await using stack = new AsyncDisposableStack()
  const redis = stack.use(await startRedis())
  const scope = {
    redis: { url: redis.url, prefix: 'chaperone' },
    trustDomain: names.trustDomain,
    clock,
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  }
  const feeds = Array.from({ length: sidecars }, () =>
    stack.use(createRedisFeed({ ...scope, syncIntervalMs: 250 })),
  )
  for (const feed of feeds) feed.start()
  await Promise.all(feeds.map(({ ready }) => ready))
  const perSecond = 1000 / restMs / sidecars
  const rest = (): Promise<Cost> => costOf(redis, () => delay(restMs))
  const feedCost = scale(await rest(), perSecond)

  for (const feed of feeds) {
    const presence = stack.use(createPresence(scope))
    feed.onApplied((records) =>
      presence.enforced(
        records.map(({ rid, atMs }) => ({
          rid,
          recordedAtMs: atMs,
          cut: 0,
          dropped: 0,
          tookMs: 0,
        })),
      ),
    )
    presence.start({
      instance: randomUUID(),
      liveTasks: () => new Map(),
      report: () => ({
        version: '0.1.0',
        policySha: '0'.repeat(64),
        position: feed.view.epoch,
        exchanges: 0,
        ageMs: Math.round(feed.view.ageMs(clock.monotonic())),
        ready: true,
        staleAfterReadsMs: 2_000,
        staleAfterStreamsMs: 10_000,
      }),
    })
  }
  const reader = stack.use(createPresenceReader(scope))
  while ((await reader.read()).sidecars.length < sidecars) await delay(20)
  const bothCost = scale(await rest(), perSecond)

  const committer = stack.use(createRedisCommitter(scope))
  const commit = (rid: string) =>
    committer.commit({
      rid,
      op: 'revoke',
      subject: `task:${rid}`,
      reason: 'benchmark',
      by: 'bench',
      expiresAtMs: 0,
    })
  await commit(randomUUID())
  const spacingMs = 500
  const busy = await costOf(redis, async () => {
    for (let trial = 0; trial < trials; trial++) {
      await commit(randomUUID())
      await delay(spacingMs)
    }
  })
  const atRest = scale(bothCost, (sidecars * trials * spacingMs) / 1000)
  const revocation = scale(subtract(busy, atRest), 1 / trials / sidecars)

  const lastAcknowledged: number[] = []
  for (let trial = 0; trial < trials; trial++) {
    const rid = randomUUID()
    const committedFromMs = clock.monotonic()
    const committed = await commit(rid)
    const options = { rid, committed, committedFromMs, waitMs: 10_000, clock }
    const { confirmed } = await awaitEnforcement(reader, options)
    if (confirmed.length !== sidecars) throw new Error(`Only ${confirmed.length} acknowledged`)
    lastAcknowledged.push(Math.max(...confirmed.map(({ afterMs }) => afterMs)))
    await delay(100)
  }
  return { sidecars, feed: feedCost, both: bothCost, revocation, lastAcknowledged }
}

async function costOf(redis: RedisProcess, work: () => Promise<void>): Promise<Cost> {
  const before = await counters(redis)
  await work()
  return subtract(await counters(redis), before)
}

async function counters(redis: RedisProcess): Promise<Cost> {
  const info = await redis.cli('INFO', 'all')
  const read = (pattern: RegExp): number => Number(pattern.exec(info)?.[1] ?? 0)
  // What a script runs inside is not sent: of the scripts, the calls count.
  const sent = ['evalsha', 'eval', 'exec', 'multi', 'get\\b', 'time', 'xrange', 'subscribe']
  const inside = read(/^cmdstat_evalsha:calls=(\d+)/m)
  const calls = sent.map((name) => read(new RegExp(`^cmdstat_${name}:calls=(\\d+)`, 'm')))
  return {
    // The script of the row asks for the time once: that call was not sent.
    commands: calls.reduce((sum, count) => sum + count, 0) - inside,
    bytesIn: read(/^total_net_input_bytes:(\d+)/m),
    bytesOut: read(/^total_net_output_bytes:(\d+)/m),
  }
}

function subtract(a: Cost, b: Cost): Cost {
  return {
    commands: a.commands - b.commands,
    bytesIn: a.bytesIn - b.bytesIn,
    bytesOut: a.bytesOut - b.bytesOut,
  }
}

function scale(cost: Cost, factor: number): Cost {
  return {
    commands: cost.commands * factor,
    bytesIn: cost.bytesIn * factor,
    bytesOut: cost.bytesOut * factor,
  }
}

function print(result: PresenceResult): void {
  const { sidecars, feed, both, revocation, lastAcknowledged } = result
  const sorted = lastAcknowledged.toSorted((a, b) => a - b)
  const median = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
  process.stdout.write(`${sidecars} sidecars
  per sidecar and second, feed alone   ${format(feed)}
  per sidecar and second, with its row ${format(both)}
  per sidecar and revocation           ${format(revocation)}
  last acknowledgement read            median ${median.toFixed(1)} ms, worst ${(sorted.at(-1) ?? Number.NaN).toFixed(1)} ms of ${sorted.length}
`)
}

function format({ commands, bytesIn, bytesOut }: Cost): string {
  return `${commands.toFixed(1)} commands, ${bytesIn.toFixed(0)} B to Redis, ${bytesOut.toFixed(0)} B from it`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const sidecars of [1, 10, 50]) {
    print(await measurePresence(sidecars, { restMs: 5_000, trials: 10 }))
  }
}
