import type { OutcomeEvent } from '../audit/record.ts'
import type { Denial } from '../policy/types.ts'
import type { Cut, Exchange } from './exchange.ts'
import type { ResponseFilter } from './response-filter.ts'
import type { UpstreamClient } from './upstream-client.ts'

/** How a forwarded request ended. */
export interface ForwardOutcome {
  /** The status that the agent got; null when it got none. */
  readonly status: number | null
  readonly end: OutcomeEvent['end']
  /** A short code of what failed. */
  readonly error?: string
}

export interface ForwardOptions {
  readonly client: UpstreamClient
  readonly method: string
  /** Raw path and query, forwarded byte for byte. */
  readonly target: string
  /** Flat name, value, name, value. */
  readonly headers: string[]
  readonly body: 'none' | 'stream' | Buffer
  readonly exchange: Exchange
  /** What of the request's trailers the upstream gets. HTTP/1 upstreams get none. */
  requestTrailers(raw: readonly string[]): readonly (readonly [name: string, value: string])[]
  responseHeaders(raw: readonly string[]): string[]
  readonly filter: ResponseFilter | undefined
  /** Whether the upstream got a credential of ours: then its 401 is about that, not about the agent. */
  readonly hasCredential: boolean
  /** Answers in the agent's dialect, before any answer of the upstream was passed on. */
  refusePending(cut: Cut | undefined, denial: Denial): void
  /** The longest silence between two pieces of the request's body. Undefined: no limit. */
  readonly bodyGapTimeoutMs: number | undefined
}
