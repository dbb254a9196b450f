import { setTimeout as delay } from 'node:timers/promises'
import type { RevocationFeed } from '../../revocation/feed.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { createRedisFeed } from '../../revocation/redis-feed.ts'
import { revocationChannel } from '../../revocation/redis-keys.ts'
import type { RedisProcess } from '../kit/redis.ts'

/** Numbers from 0 to below 1, the same for the same seed. */
export type Random = () => number

/** mulberry32: small, and good enough to choose faults with. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

export interface ScheduleReport {
  readonly steps: readonly string[]
  /** Subjects that came into force on a sidecar. */
  readonly applied: number
}

interface Sidecar {
  readonly name: string
  readonly feed: RevocationFeed
  readonly applied: Set<string>
}

interface Stage {
  readonly redis: RedisProcess
  readonly trustDomain: string
  readonly random: Random
  readonly sidecars: readonly Sidecar[]
  /** Monotonic milliseconds since which Redis cannot answer; undefined while it can. */
  downSinceMs: number | undefined
}

const clock = { now: () => Date.now(), monotonic: () => performance.now() }
const silent = { info: () => undefined, warn: () => undefined, error: () => undefined }
const convergeMs = 20_000
const minSteps = 4
const maxSteps = 9

/**
 * Two sidecars follow one Redis while faults and revocations come in random order. Throws with the steps when a record
 * was un-revoked, a view claimed to be fresher than it could be, or the sidecars did not agree in the end.
 */
export async function runSchedule(
  redis: RedisProcess,
  { random, trustDomain }: { readonly random: Random; readonly trustDomain: string },
): Promise<ScheduleReport> {
  const steps: string[] = []
  await using stack = new AsyncDisposableStack()
  const sidecars = ['a', 'b'].map((name) => startSidecar(name, { redis, trustDomain }))
  for (const { feed } of sidecars) stack.use(feed)
  const stage: Stage = { redis, trustDomain, random, sidecars, downSinceMs: undefined }
  try {
    await until(() => sidecars.every(({ feed }) => ageOf(feed) < 500), 'both are fresh')
    const watcher = setInterval(() => watch(stage), 10)
    stack.defer(() => clearInterval(watcher))
    const count = minSteps + Math.floor(random() * (maxSteps - minSteps))
    for (let n = 0; n < count; n++) {
      const step = choose(random, actions)
      steps.push(step.name)
      await step.act(stage, n)
      watch(stage)
      await delay(random() * 120)
    }
    await converge(stage)
  } catch (error) {
    throw new Error(`${trustDomain}: ${steps.join(', ')}: ${String(error)}`, { cause: error })
  }
  if (broken !== undefined) throw new Error(`${trustDomain}: ${steps.join(', ')}: ${broken}`)
  return { steps, applied: new Set(sidecars.flatMap(({ applied }) => [...applied])).size }
}

/** What the watcher saw: it runs in a timer, where nobody would catch it. */
let broken: string | undefined

function startSidecar(
  name: string,
  { redis, trustDomain }: { readonly redis: RedisProcess; readonly trustDomain: string },
): Sidecar {
  const feed = createRedisFeed({ ...scopeOf(redis, trustDomain), syncIntervalMs: 60, log: silent })
  const applied = new Set<string>()
  feed.onApplied((records) => {
    for (const { subject } of records) applied.add(subject)
  })
  feed.start()
  return { name, feed, applied }
}

function scopeOf({ url }: RedisProcess, trustDomain: string) {
  return { redis: { url, prefix: 'chaperone' }, trustDomain, clock }
}

function ageOf(feed: RevocationFeed): number {
  return feed.view.ageMs(performance.now())
}

/** I1: what was in force stays so. And no view is younger than the last moment at which Redis could answer. */
function watch({ sidecars, downSinceMs }: Stage): void {
  for (const { name, feed, applied } of sidecars) {
    for (const subject of applied) {
      if (!feed.view.find([subject])) broken ??= `${name} un-revoked ${subject}`
    }
    const downMs = downSinceMs === undefined ? 0 : performance.now() - downSinceMs
    if (ageOf(feed) < downMs - 5)
      broken ??= `${name} claims an age below ${Math.round(downMs)} ms of silence`
  }
}

interface Action {
  readonly name: string
  act(stage: Stage, n: number): Promise<void>
}

const commit: Action = {
  name: 'commit',
  async act({ redis, trustDomain, random }, n) {
    await using committer = createRedisCommitter(scopeOf(redis, trustDomain))
    const subject = `task:T-${n}-${Math.floor(random() * 1e6)}`
    const draft = {
      rid: `r-${subject}`,
      op: 'revoke',
      subject,
      reason: 'soak',
      by: 'soak',
      expiresAtMs: 0,
    } as const
    await committer.commit(draft)
  },
}
const publish = (name: string, text: (n: number) => string): Action => ({
  name,
  async act({ redis, trustDomain }, n) {
    await redis.cli('PUBLISH', revocationChannel(scopeOf(redis, trustDomain)), text(n))
  },
})
const restart: Action = {
  name: 'kill and restart empty',
  async act(stage) {
    stage.downSinceMs = performance.now()
    await stage.redis.kill()
    await delay(stage.random() * 400)
    stage.downSinceMs = undefined
    await stage.redis.restart()
  },
}
const freeze: Action = {
  name: 'freeze',
  async act(stage) {
    stage.redis.freeze()
    // A question that was under way may still have been answered.
    await delay(20)
    stage.downSinceMs = performance.now()
    await delay(stage.random() * 900)
    stage.downSinceMs = undefined
    stage.redis.thaw()
  },
}
const command = (name: string, ...args: readonly string[]): Action => ({
  name,
  async act({ redis }) {
    await redis.cli(...args)
  },
})

const actions: readonly Action[] = [
  commit,
  commit,
  commit,
  publish('bare publish', (n) => `task:bare-${n} soak`),
  publish('malformed publish', () => '{"n":1,"record":'),
  publish('forged lift', () => '{"n":9,"atMs":1,"record":{"op":"lift","lifts":["r1"]}}'),
  restart,
  freeze,
  command('drop the connections', 'CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'),
  command('drop the subscribers', 'CLIENT', 'KILL', 'TYPE', 'pubsub'),
  command('flush', 'FLUSHALL'),
]

/** Faults end: both views are complete, hold the same, and the store has all of it. */
async function converge({ sidecars, redis, trustDomain }: Stage): Promise<void> {
  const subjects = (): readonly string[] => [
    ...new Set(sidecars.flatMap(({ applied }) => [...applied])),
  ]
  await until(
    () =>
      sidecars.every(
        ({ feed }) =>
          ageOf(feed) < 500 &&
          feed.status().missingInStore === 0 &&
          subjects().every((subject) => feed.view.find([subject]) !== undefined),
      ),
    'both sidecars are fresh, hold what either held, and miss nothing in the store',
  )
  const epochs = new Set(sidecars.map(({ feed }) => feed.view.epoch))
  await until(
    () => new Set(sidecars.map(({ feed }) => feed.view.epoch)).size === 1,
    `one epoch, not ${[...epochs].join(' and ')}`,
  )
  await using late = startSidecar('late', { redis, trustDomain }).feed
  await until(
    () =>
      ageOf(late) < 500 && subjects().every((subject) => late.view.find([subject]) !== undefined),
    'a sidecar that starts now learns all of it from the store',
  )
}

async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + convergeMs
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`never: ${what}`)
    await delay(10)
  }
}

function choose<T>(random: Random, options: readonly [T, ...T[]] | readonly T[]): T {
  const chosen = options[Math.floor(random() * options.length)]
  if (chosen === undefined) throw new TypeError('Expected something to choose from')
  return chosen
}
