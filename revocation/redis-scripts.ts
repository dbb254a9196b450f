import type { Redis } from 'ioredis'
import * as v from 'valibot'
import type { Lift } from '../policy/lift.ts'
import type { Revocation } from '../policy/types.ts'
import type { Committed, RevocationDraft } from './feed.ts'
import type { Assertion } from './assertion.ts'
import type { RedisKeys } from './redis-keys.ts'
import { formatDraft, formatLift, RevocationStoreError } from './revocation-record.ts'
import { absorbScript, commitScript } from './scripts.ts'

/** The scripts of one store, over one connection. All reject with the client's error or `RevocationStoreError`. */
export interface RedisScripts {
  commit(draft: RevocationDraft | Revocation): Promise<Committed>
  commitLift(lift: Lift): Promise<Committed>
  /** Resolves with the rid of the record that stands for the assertion. */
  absorb(assertion: Assertion): Promise<string>
}

export function redisScripts(redis: Redis, keys: RedisKeys): RedisScripts {
  const { head, log, records, expiry, channel, absorbed, revoked } = keys
  const run = async (...args: readonly string[]): Promise<Committed> => {
    const reply = await redis.eval(
      commitScript,
      6,
      head,
      log,
      records,
      expiry,
      channel,
      absorbed,
      ...args,
    )
    const read = v.safeParse(committedSchema, reply)
    if (!read.success) throw unreadable()
    const [epoch, atMs] = read.output
    return { epoch, atMs: Number(atMs) }
  }
  return {
    commit: async (draft) => run(draft.rid, formatDraft(draft), String(draft.expiresAtMs)),
    // It stays as long as the records that it names could: only then can nobody miss it.
    commitLift: async (lift) => run(lift.rid, formatLift(lift), '0', ...lift.lifts),
    async absorb({ record, seenAt }) {
      const reply = await redis.eval(
        absorbScript,
        7,
        head,
        log,
        records,
        expiry,
        channel,
        absorbed,
        revoked,
        record.subject,
        record.reason,
        seenAt === undefined ? '' : String(seenAt),
        record.rid,
      )
      if (typeof reply !== 'string') throw unreadable()
      return reply
    },
  }
}

const committedSchema = v.tuple([v.string(), v.pipe(v.string(), v.regex(/^\d{1,15}$/))])

function unreadable(): RevocationStoreError {
  return new RevocationStoreError('ERR_REVOCATION_STORE_REPLY', 'Cannot read the reply of Redis')
}
