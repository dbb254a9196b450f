import { openAuditLog } from '../audit/file-log.ts'
import type { AuditLog } from '../audit/log.ts'
import type { Config } from '../config/schema.ts'
import type { Clock } from '../policy/types.ts'
import type { Log } from './log.ts'
import { version } from './version.ts'

/** The audit of one process, as it is configured. Rejects like `openAuditLog()`. */
export function auditLogOf(
  { sink, maxBacklog, writeTimeout: writeTimeoutMs, spool }: Config['audit'],
  {
    log,
    ...process
  }: {
    readonly instance: string
    readonly configSha: () => string
    readonly clock: Clock
    readonly log: Log
  },
): Promise<AuditLog> {
  return openAuditLog({
    ...process,
    sink,
    version,
    maxBacklog,
    writeTimeoutMs,
    ...(spool && { spool }),
    onSpooling: (cause) =>
      log.error({ cause }, 'the audit sink takes no records: the spool keeps them, requests go on'),
  })
}
