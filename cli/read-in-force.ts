import type { Revocation } from '../policy/types.ts'
import { liftVerifier } from '../proxy/lift-verifier.ts'
import { systemClock } from '../proxy/system-clock.ts'
import { createRedisCommitter } from '../revocation/redis-committer.ts'
import { askStore, type Store } from './store-options.ts'

/** The records in force that fit, newest first. Says on standard error when there may be others. */
export async function readInForce(
  store: Store,
  fits?: (record: Revocation) => boolean,
): Promise<readonly Revocation[]> {
  const { operators = [], trustDomain } = store
  const verifyLift = liftVerifier({ operators, trustDomain })
  await using committer = createRedisCommitter({ ...store, clock: systemClock, verifyLift })
  const inForce = await askStore(store.redis, () => committer.inForce(fits))
  const { records, unreadable, isCut } = inForce
  if (unreadable > 0) {
    process.stderr.write(
      `${unreadable} records in Redis cannot be read and may be in force: they are left out here\n`,
    )
  }
  if (isCut) {
    process.stderr.write(`More records may be in force: these are the newest ${records.length}\n`)
  }
  return records
}
