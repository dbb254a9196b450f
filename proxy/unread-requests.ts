import type { AuditEvent } from '../audit/record.ts'
import type { Metrics } from './metrics.ts'

/** Why something that arrived never became a request that is decided. */
export const unreadReasons = [
  'malformed',
  'head-too-large',
  'late',
  'connect',
  'expectation',
  'handshake',
  'overload',
] as const

export type UnreadReason = (typeof unreadReasons)[number]

interface UnreadRequestsOptions {
  readonly metrics: Pick<Metrics, 'unread'>
  /** Puts one event on record; never rejects. */
  readonly record: (event: AuditEvent) => Promise<void>
  /** Default 10 s: the least time between two records. */
  readonly everyMs?: number
}

/**
 * Puts on record what was refused before there was a request to decide. The first is recorded at once, what follows
 * within `everyMs` as one record of counts: whoever sends garbage must not choose how much is written.
 */
export class UnreadRequests implements AsyncDisposable {
  readonly #options: UnreadRequestsOptions
  #counts = new Map<UnreadReason, number>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: UnreadRequestsOptions) {
    this.#options = options
  }

  note(reason: UnreadReason): void {
    this.#options.metrics.unread(reason)
    this.#counts.set(reason, (this.#counts.get(reason) ?? 0) + 1)
    if (this.#timer) return
    this.#timer = setInterval(() => void this.#flush(), this.#options.everyMs ?? 10_000)
    this.#timer.unref()
    void this.#flush()
  }

  async #flush(): Promise<void> {
    const counts = this.#counts
    this.#counts = new Map()
    if (counts.size > 0) {
      await this.#options.record({ type: 'unread', detail: Object.fromEntries(counts) })
      return
    }
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Records what is still only counted. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#flush()
    clearInterval(this.#timer)
  }
}
