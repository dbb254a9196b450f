import type { RedisConfig } from '../../config/schema.ts'
import type { Clock } from '../../policy/types.ts'
import type { RevocationDraft, RevocationFeed } from '../../revocation/feed.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { createRedisFeed } from '../../revocation/redis-feed.ts'
import { untilTrue } from './until-true.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }

export interface StoreScope {
  readonly redis: RedisConfig
  readonly trustDomain: string
  readonly clock: Clock
}

export function scopeOf(url: string): StoreScope {
  return { redis: { url, prefix: 'chaperone' }, trustDomain: 'prod.example.org', clock }
}

export function draftOf(subject: string): RevocationDraft {
  return {
    rid: `r-${subject}`,
    op: 'revoke',
    subject,
    reason: 'runaway',
    by: 'op@example.org',
    expiresAtMs: 0,
  }
}

/** The records that an engine has acknowledged, and when: what a fresh view must have. */
export class Acknowledged {
  readonly #subjects = new Map<string, number>()

  /** Commits, and again when it is refused, for half a minute: an engine is between two masters for seconds. */
  async revoke(at: StoreScope, subject: string): Promise<void> {
    const deadline = performance.now() + 30_000
    for (;;) {
      await using committer = createRedisCommitter(at)
      try {
        await committer.commit(draftOf(subject))
        this.#subjects.set(subject, performance.now())
        return
      } catch (error) {
        if (performance.now() > deadline) throw error
      }
    }
  }

  /** What this view says is not so: it is fresher than a record that it lacks. */
  lackedBy(feed: RevocationFeed): string | undefined {
    const nowMs = performance.now()
    for (const [subject, atMs] of this.#subjects) {
      const provenMs = nowMs - feed.view.ageMs(nowMs)
      if (provenMs > atMs && !feed.view.find([subject])) {
        return `${subject} is missing, and was there ${Math.round(provenMs - atMs)} ms before the view was proven`
      }
    }
    return undefined
  }

  holds(feed: RevocationFeed): boolean {
    return [...this.#subjects.keys()].every((subject) => feed.view.find([subject]) !== undefined)
  }
}

/** A feed that is looked at every few milliseconds: whether it un-revokes, or claims a freshness that it has not. */
export interface WatchedFeed extends AsyncDisposable {
  readonly feed: RevocationFeed
  readonly lines: readonly string[]
  readonly ageMs: () => number
  /** Resolve when the view is fresh, or holds the subject. */
  fresh(): Promise<void>
  has(subject: string): Promise<void>
  /** The greatest age since the last call, milliseconds. */
  oldestMs(): number
  /** What was wrong at any moment so far. */
  readonly broken: readonly string[]
}

export function startWatchedFeed(at: StoreScope, acknowledged: Acknowledged): WatchedFeed {
  const lines: string[] = []
  const broken: string[] = []
  const applied = new Set<string>()
  const write = (fields: object, message: string): void => {
    lines.push(`${message} ${JSON.stringify(fields)}`)
  }
  const log = { info: write, warn: write, error: write }
  const feed = createRedisFeed({ ...at, syncIntervalMs: 100, log })
  feed.onApplied((records) => {
    for (const { subject } of records) applied.add(subject)
  })
  feed.start()
  let oldestMs = 0
  const look = (): void => {
    const ageMs = feed.view.ageMs(performance.now())
    if (ageMs !== Infinity) oldestMs = Math.max(oldestMs, ageMs)
    for (const subject of applied) {
      if (!feed.view.find([subject])) broken.push(`un-revoked ${subject}`)
    }
    const lacked = acknowledged.lackedBy(feed)
    if (lacked !== undefined) broken.push(lacked)
  }
  const timer = setInterval(look, 5)
  const ageNowMs = (): number => feed.view.ageMs(performance.now())
  return {
    feed,
    lines,
    broken,
    ageMs: ageNowMs,
    fresh: () => untilTrue(async () => ageNowMs() < freshMs, 'the view is fresh'),
    has: (subject) =>
      untilTrue(async () => feed.view.find([subject]) !== undefined, `${subject} is in force`),
    oldestMs() {
      look()
      const read = oldestMs
      oldestMs = 0
      return read
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await feed[Symbol.asyncDispose]()
    },
  }
}

const freshMs = 500

/**
 * Waits until all that was acknowledged is in force here and nothing of it is missing in the store. Resolves with what is
 * wrong then: of what this feed ever said, and of what a sidecar that starts now reads.
 */
export async function findDisagreements(
  { feed, broken }: WatchedFeed,
  { at, acknowledged }: { readonly at: StoreScope; readonly acknowledged: Acknowledged },
): Promise<readonly string[]> {
  await untilTrue(
    async () => acknowledged.holds(feed) && feed.status().missingInStore === 0,
    'all of it is in force, and in the store',
  )
  await using late = startWatchedFeed(at, acknowledged)
  await late.feed.ready
  const lacks = acknowledged.holds(late.feed) ? [] : ['the store lacks a record']
  return [...broken, ...late.broken, ...lacks]
}
