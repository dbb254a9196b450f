import type { ChainHead } from './chain.ts'
import type { AuditEvent } from './record.ts'

/** The append-only, hash-chained log. */
export interface AuditLog extends AsyncDisposable {
  /**
   * Resolves when the line has been handed to the operating system. Rejects with `AuditError` when the sink does not
   * take it within the time limit or the backlog is full: the caller refuses the request.
   */
  append(event: AuditEvent): Promise<void>
  /** Writes what is waiting. Called at shutdown. */
  flush(): Promise<void>
  /** The record that was sealed last; it may still wait for the sink. */
  readonly head: ChainHead
  readonly backlog: number
  /** Records that requests went on with and that the sink has not taken yet: they are in the spool. */
  readonly spooled: number
  readonly healthy: boolean
}

export class AuditError extends Error {
  override readonly name = 'AuditError'
  readonly code: 'ERR_AUDIT_BACKLOG' | 'ERR_AUDIT_TIMEOUT' | 'ERR_AUDIT_SINK' | 'ERR_AUDIT_KEY'
  constructor(code: AuditError['code'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
