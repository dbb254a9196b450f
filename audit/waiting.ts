import type { AuditError } from './log.ts'

/** A line that the sink has not taken to its end. */
export interface Waiting {
  readonly bytes: Buffer
  readonly resolve: () => void
  readonly reject: (error: AuditError) => void
  /** The time limit, once it is known that the record does not go out within this turn of the event loop. */
  timer?: NodeJS.Timeout
  /** It is in the spool, and nobody waits for it any more. */
  kept?: boolean
}

/** Of an earlier process: it is in the spool. */
export const unawaited: Omit<Waiting, 'bytes'> = {
  resolve: () => undefined,
  reject: () => undefined,
  kept: true,
}

export function settle({ timer, resolve, reject }: Waiting, error?: AuditError): void {
  clearTimeout(timer)
  if (error) reject(error)
  else resolve()
}
