import { Readable } from 'node:stream'
import type { AgentRequest } from './arrival.ts'
import type { Exchange } from './exchange.ts'
import { http } from './node-http.ts'
import { resetConnection } from './reset-connection.ts'

interface RequestBodyOptions {
  readonly body: 'none' | 'stream' | Buffer
  readonly exchange: Exchange
  /** The longest silence between two pieces. Undefined: no limit. */
  readonly gapTimeoutMs: number | undefined
}

/** The agent stopped sending in the middle of a body, or was too slow. */
export class RequestBodyError extends Error {
  override readonly name = 'RequestBodyError'
  readonly code: 'ERR_BODY_GAP' | 'ERR_BODY_ABORTED' | 'ERR_BODY_CUT'
  constructor(code: RequestBodyError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** What is sent upstream: nothing, the bytes that were judged, or the agent's stream piece by piece. */
export function requestBody(
  req: AgentRequest,
  { body, exchange, gapTimeoutMs }: RequestBodyOptions,
): Buffer | Readable | null {
  if (body === 'none') return null
  if (body !== 'stream') {
    exchange.bytesUp += body.length
    return body
  }
  return Readable.from(pieces(req, { exchange, gapTimeoutMs }), {
    objectMode: false,
    highWaterMark: 65_536,
  })
}

async function* pieces(
  req: AgentRequest,
  { exchange, gapTimeoutMs }: Omit<RequestBodyOptions, 'body'>,
): AsyncGenerator<Buffer> {
  // An upstream that answers early ends this loop: the agent's socket must live on to carry the answer.
  const incoming = req.iterator({ destroyOnReturn: false })
  try {
    for (;;) {
      const piece = await nextPiece(req, { incoming, gapTimeoutMs })
      if (piece === undefined) break
      // The flag counts before the abort has reached the upstream: nothing more is forwarded from that instant.
      if (exchange.cut) throw new RequestBodyError('ERR_BODY_CUT', 'The exchange was cut')
      exchange.bytesUp += piece.length
      yield piece
    }
    if (!req.complete) throw new RequestBodyError('ERR_BODY_ABORTED', 'The body ended early')
  } finally {
    await incoming.return?.()
  }
}

/** Only the agent's silence counts, not the time that a slow upstream takes for the piece before. */
async function nextPiece(
  req: AgentRequest,
  options: Pick<RequestBodyOptions, 'gapTimeoutMs'> & { readonly incoming: AsyncIterator<unknown> },
): Promise<Buffer | undefined> {
  const tooLate = (): void => {
    // An answer that has begun must not look whole.
    if (req instanceof http.IncomingMessage) resetConnection(req.socket)
    req.destroy(new RequestBodyError('ERR_BODY_GAP', 'No piece of the body came in time'))
  }
  const { gapTimeoutMs } = options
  const timer = gapTimeoutMs === undefined ? undefined : setTimeout(tooLate, gapTimeoutMs)
  try {
    const { done, value } = await options.incoming.next()
    if (done === true) return undefined
    if (!Buffer.isBuffer(value)) throw new TypeError('Expected bytes')
    return value
  } finally {
    clearTimeout(timer)
  }
}
