import type { Lift } from '../policy/lift.ts'
import { RevocationSet } from '../policy/revocation-set.ts'
import type { Clock, Revocation, RevocationView } from '../policy/types.ts'
import type { RevocationCommitter, RevocationFeed } from './feed.ts'
import { refuseLifts, type VerifyLift } from './lift-gate.ts'
import { formatPosition, genesis, linkHash } from './link-hash.ts'
import { checkDraft, formatLift } from './revocation-record.ts'

export interface EmbeddedRevocation {
  readonly feed: RevocationFeed
  readonly committer: RevocationCommitter
}

/**
 * Revocation inside one process: what is committed is in force when `commit()` returns, and is gone with the process.
 * The view is never stale after `start()`: there is nothing between it and its source.
 */
export function createEmbeddedRevocation(options: {
  readonly clock: Clock
  /** Absent: nothing can be lifted before it expires. */
  readonly verifyLift?: VerifyLift
}): EmbeddedRevocation {
  const { clock, verifyLift = refuseLifts } = options
  const set = new RevocationSet()
  const listeners: ((records: readonly Revocation[]) => void)[] = []
  const liftListeners: ((lift: Lift) => void)[] = []
  const started = Promise.withResolvers<void>()
  let running = false
  let head = genesis
  let liftsIgnored = 0
  const advance = (entry: string): void => {
    head = { n: head.n + 1, h: linkHash(head.h, entry) }
  }

  const view: RevocationView = {
    get epoch() {
      return running ? formatPosition(head) : '-'
    },
    ageMs: () => (running ? 0 : Infinity),
    find: (subjects) => {
      set.expire(clock.now())
      return set.find(subjects)
    },
  }

  const feed: RevocationFeed = {
    view,
    start: () => {
      running = true
      started.resolve()
    },
    ready: started.promise,
    onApplied: (listener) => void listeners.push(listener),
    onLifted: (listener) => void liftListeners.push(listener),
    status: () => ({
      source: 'embedded',
      connected: running,
      epoch: view.epoch,
      ageMs: view.ageMs(clock.monotonic()),
      records: set.size,
      gaps: 0,
      scans: 0,
      malformed: 0,
      liftsIgnored,
      missingInStore: 0,
    }),
    async [Symbol.asyncDispose]() {
      running = false
    },
  }

  const committer: RevocationCommitter = {
    commit: async (draft) => {
      checkDraft(draft)
      set.expire(clock.now())
      const record: Revocation = { ...draft, atMs: clock.now(), epoch: head.n + 1 }
      if (set.add(record)) {
        advance(JSON.stringify(record))
        for (const listener of listeners) listener([record])
      }
      return { epoch: formatPosition(head), atMs: record.atMs }
    },
    commitLift: async ({ compact }) => {
      const verified = await verifyLift(compact)
      if (verified.ok) {
        const isNew = verified.lift.lifts.map((rid) => set.lift(rid)).includes(true)
        if (isNew) {
          advance(formatLift(verified.lift))
          for (const listener of liftListeners) listener(verified.lift)
        }
      } else liftsIgnored++
      return { epoch: formatPosition(head), atMs: clock.now() }
    },
  }
  return { feed, committer }
}
