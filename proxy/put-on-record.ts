import type { AuditLog } from '../audit/log.ts'
import type { AuditEvent } from '../audit/record.ts'
import type { Log } from './log.ts'

/** Appends an event that no request waits for. Never rejects. */
export async function putOnRecord(
  { audit, log }: { readonly audit: AuditLog; readonly log: Log },
  event: AuditEvent,
): Promise<void> {
  try {
    await audit.append(event)
  } catch (error) {
    log.error({ err: error, type: event.type }, 'an event could not be put on record')
  }
}
