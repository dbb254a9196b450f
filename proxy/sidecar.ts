import type { AuditLog } from '../audit/log.ts'
import type { CredentialCache } from '../credential/cache.ts'
import type { Clock, Denial } from '../policy/types.ts'
import type { RevocationFeed } from '../revocation/feed.ts'
import type { Exchange } from './exchange.ts'
import type { Exchanges, Tracked } from './exchanges.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import type { Snapshot } from './snapshot.ts'
import type { TaskResolver } from './task-resolver.ts'

/** The parts that live as long as the process; `snapshot` is swapped whole at a reload. */
export interface Sidecar {
  readonly snapshot: Snapshot
  readonly feed: RevocationFeed
  readonly tasks: TaskResolver
  readonly exchanges: Exchanges
  /** Puts an exchange into the in-flight table; a refusal when the table is full. */
  track(tracked: Tracked): Exchange | Denial
  readonly credentials: CredentialCache
  readonly audit: AuditLog
  readonly metrics: Metrics
  readonly log: Log
  readonly clock: Clock
}
