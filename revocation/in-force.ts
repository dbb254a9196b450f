import type { Redis } from 'ioredis'
import type { Clock, Revocation } from '../policy/types.ts'
import type { VerifyLift } from './lift-gate.ts'
import type { RedisKeys } from './redis-keys.ts'
import { maxPageEntries, scanEnvelopes } from './redis-log.ts'
import { parseEnvelope, RevocationStoreError } from './revocation-record.ts'

/** What a look at every record of the store found. */
export interface InForce {
  /** Neither lifted nor expired, newest first. */
  readonly records: readonly Revocation[]
  /** Entries that nobody can read: any of them may be in force. */
  readonly unreadable: number
  /** There are more: these are the newest. */
  readonly isCut: boolean
}

/**
 * Reads every record and lift of the store: one that is in force may be older than all that the log still has. What is
 * committed meanwhile may be missing. Rejects with `RevocationStoreError` when there are too many lifts.
 */
export async function readInForce(
  redis: Redis,
  options: {
    readonly keys: RedisKeys
    readonly clock: Clock
    readonly verifyLift?: VerifyLift | undefined
    readonly fits: (record: Revocation) => boolean
    /** The most records that come back; twice as many are held. */
    readonly limit: number
  },
): Promise<InForce> {
  const { keys, clock, verifyLift, fits, limit } = options
  const nowMs = clock.now()
  let records = new Map<string, Revocation>()
  const lifted = new Set<string>()
  let unreadable = 0
  let isCut = false
  for await (const envelopes of scanEnvelopes(redis, { keys, count: maxPageEntries })) {
    for (const envelope of envelopes) {
      const item = parseEnvelope(envelope)
      if (!item) unreadable += 1
      else if (item.kind === 'record') {
        const { expiresAtMs: at, rid } = item.record
        if ((at === 0 || at > nowMs) && fits(item.record)) records.set(rid, item.record)
      } else {
        const result = await verifyLift?.(item.lift.compact)
        if (result?.ok) for (const rid of result.lift.lifts) lifted.add(rid)
      }
    }
    if (lifted.size > maxLiftedRids) {
      throw new RevocationStoreError(
        'ERR_REVOCATION_STORE_REPLY',
        `Cannot tell what is in force: the lifts in Redis name more than ${maxLiftedRids} records`,
      )
    }
    if (records.size > 2 * limit) {
      records = new Map(
        newest(records)
          .slice(0, limit)
          .map((one) => [one.rid, one]),
      )
      isCut = true
    }
  }
  const inForce = newest(records).filter(({ rid }) => !lifted.has(rid))
  return {
    records: inForce.slice(0, limit),
    unreadable,
    isCut: isCut || inForce.length > limit,
  }
}

const maxLiftedRids = 1_000_000

function newest(records: ReadonlyMap<string, Revocation>): readonly Revocation[] {
  return [...records.values()].toSorted((a, b) => (b.epoch ?? 0) - (a.epoch ?? 0))
}
