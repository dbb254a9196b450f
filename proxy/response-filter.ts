import type { Cut } from './exchange.ts'

/**
 * Looks at an answer on its way to the agent, and knows how to end it in its dialect. The forwarder calls `head` once,
 * then `chunk` for each piece, then `end`. A filter that throws `ResponseFilterError` ends the exchange with a reset
 * (or 502 before the head was sent).
 */
export interface ResponseFilter {
  /** Whether bytes pass unchanged: then the forwarder keeps Content-Length. Decided from the answer's head. */
  head(head: ResponseHead): 'pass' | 'rewrite'
  /** Bytes to send on now; undefined while more is needed. */
  chunk(chunk: Buffer): Buffer | undefined
  /** What is left at the end. */
  end(): Buffer | undefined
  /**
   * The last bytes of an answer that is cut after its head was sent: a final event that lets the client return at
   * once. undefined when none fits; then the connection is reset.
   */
  final(cut: Cut): Buffer | undefined
}

export interface ResponseHead {
  readonly status: number
  /** Lower-case media type without parameters; '' when absent. */
  readonly contentType: string
}

export class ResponseFilterError extends Error {
  override readonly name = 'ResponseFilterError'
  readonly code = 'ERR_RESPONSE_FILTER'
}
