import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Dispatcher } from 'undici'
import type { OutcomeEvent } from '../audit/record.ts'
import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import type { Cut, CutHow, Exchange } from './exchange.ts'
import { requestBody, RequestBodyError } from './request-body.ts'
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
  responseHeaders(raw: readonly string[] | readonly Buffer[]): string[]
  readonly filter: ResponseFilter | undefined
  /** Whether the upstream got a credential of ours: then its 401 is about that, not about the agent. */
  readonly hasCredential: boolean
  /** Answers in the agent's dialect, before any answer of the upstream was passed on. */
  refusePending(cut: Cut | undefined, denial: Denial): void
  readonly bodyGapTimeoutMs: number
}

/**
 * Sends one request and streams the answer back, with back-pressure both ways. Resolves when the agent's side is over:
 * complete, cut, gone or failed. A broken answer is a reset, never a clean end. Nothing is retried.
 */
export function forward(
  req: IncomingMessage,
  res: ServerResponse,
  options: ForwardOptions,
): Promise<ForwardOutcome> {
  return new Promise((resolve) => {
    const forwarding = new Forwarding({ req, res, options, resolve })
    // The agent may have left while its request was judged: no event would tell of it any more.
    if (res.closed) return forwarding.closed()
    options.exchange.attach(forwarding)
    if (!options.exchange.cut) forwarding.dispatch()
  })
}

/** An answer up to this size leaves with its head in one write. */
const smallAnswerBytes = 65_536
/** How long a final message may take to leave before the connection is reset after all. */
const finalMessageMs = 100

interface Head {
  readonly status: number
  readonly message: string
  readonly headers: string[]
}

class Forwarding implements Dispatcher.DispatchHandler {
  readonly #req: IncomingMessage
  readonly #res: ServerResponse
  readonly #options: ForwardOptions
  readonly #resolve: (outcome: ForwardOutcome) => void
  #controller: Dispatcher.DispatchController | undefined
  /** Held until the first bytes, when the whole answer is small or is looked at. */
  #head: Head | undefined
  #answerLength: number | undefined
  #filter: ResponseFilter | undefined
  /** Set when the answer cannot be completed any more. */
  #failure: string | undefined
  #refused = false
  #ended = false

  constructor(context: {
    readonly req: IncomingMessage
    readonly res: ServerResponse
    readonly options: ForwardOptions
    readonly resolve: (outcome: ForwardOutcome) => void
  }) {
    this.#req = context.req
    this.#res = context.res
    this.#options = context.options
    this.#resolve = context.resolve
    this.#res.once('close', () => this.closed())
  }

  dispatch(): void {
    const { client, method, target, headers, body, exchange, bodyGapTimeoutMs } = this.#options
    client.dispatcher.dispatch(
      {
        path: target,
        method,
        headers,
        body: requestBody(this.#req, { body, exchange, gapTimeoutMs: bodyGapTimeoutMs }),
        // undici would close the connection after every HEAD.
        reset: false,
      },
      this,
    )
  }

  // What undici tells, in its order.

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#options.exchange.cut || this.#res.closed) controller.abort(abortion)
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    _headers: unknown,
    message = '',
  ): void {
    if (this.#isOver() || status < 200) return
    if (this.#options.hasCredential && (status === 401 || status === 407)) {
      return this.#refuse(deny('upstream-credential-rejected', `the upstream answered ${status}`))
    }
    const headers = this.#options.responseHeaders(rawFields(controller))
    this.#answerLength = contentLength(headers)
    if (this.#options.filter && isEncoded(headers)) {
      return this.#refuse(deny('upstream-unreachable', 'ERR_CONTENT_ENCODING'))
    }
    const isRewritten = this.#openFilter(status, headers)
    if (isRewritten) withoutField(headers, 'content-length')
    this.#head = { status, message, headers }
    const isStream = fieldValue(headers, 'content-type')?.startsWith('text/event-stream') ?? false
    const isSmall = (this.#answerLength ?? Infinity) <= smallAnswerBytes
    // A stream's head must not wait for its first event; a rewritten answer may still turn into a refusal.
    if (isStream || !(isSmall || isRewritten)) this.#sendHead()
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    const { exchange } = this.#options
    if (this.#isOver()) return
    const bytes = this.#filter ? this.#filterChunk(this.#filter, chunk) : chunk
    if (bytes === undefined || bytes.length === 0) return
    exchange.bytesDown += bytes.length
    const isWhole = this.#head !== undefined && !this.#filter && bytes.length === this.#answerLength
    this.#sendHead({ flush: false })
    if (isWhole) {
      this.#ended = true
      this.#res.end(bytes)
      return
    }
    if (!this.#res.write(bytes)) {
      controller.pause()
      this.#res.once('drain', () => controller.resume())
    }
  }

  onResponseEnd(): void {
    if (this.#isOver() || this.#ended) return
    const rest = this.#filter ? this.#endFilter(this.#filter) : undefined
    if (this.#isOver()) return
    this.#sendHead({ flush: false })
    if (rest) this.#options.exchange.bytesDown += rest.length
    this.#ended = true
    this.#res.end(rest)
  }

  onResponseError(_controller: unknown, error: Error): void {
    if (this.#isOver() || this.#ended) return
    // The agent's fault, not the upstream's: `closed()` says which.
    if (error instanceof RequestBodyError) return resetClient(this.#res)
    const code = errorCode(error)
    if (!this.#res.headersSent) return this.#refuse(deny('upstream-unreachable', code))
    this.#failure = code
    resetClient(this.#res)
  }

  // What an order to cut does.

  cutClient(cut: Cut): CutHow {
    const res = this.#res
    if (!res.headersSent) {
      this.#refused = true
      this.#options.refusePending(cut, deny(cut.code, 'cut while in flight'))
      return 'denied'
    }
    const final = res.writableLength === 0 ? this.#filter?.final(cut) : undefined
    if (final && !this.#ended) {
      res.write(final)
      const { socket } = res
      socket?.destroySoon()
      setTimeout(() => socket?.resetAndDestroy(), finalMessageMs).unref()
      return 'final-message'
    }
    resetClient(res)
    return 'reset'
  }

  cutUpstream(): void {
    this.#controller?.abort(abortion)
  }

  /** Nothing more may reach the agent. */
  #isOver(): boolean {
    return (
      this.#refused ||
      this.#failure !== undefined ||
      this.#options.exchange.cut !== undefined ||
      this.#res.closed
    )
  }

  #refuse(denial: Denial): void {
    this.#refused = true
    this.#failure = denial.code
    this.#head = undefined
    this.#options.refusePending(undefined, denial)
    this.#controller?.abort(abortion)
  }

  #sendHead({ flush } = { flush: true }): void {
    if (!this.#head) return
    const { status, message, headers } = this.#head
    this.#head = undefined
    this.#res.sendDate = false
    this.#res.writeHead(status, message, headers)
    if (flush) this.#res.flushHeaders()
  }

  /** Returns whether the answer's length changes on the way. */
  #openFilter(status: number, headers: readonly string[]): boolean {
    const { filter } = this.#options
    if (!filter) return false
    this.#filter = filter
    const contentType = fieldValue(headers, 'content-type')?.split(';', 1)[0] ?? ''
    return filter.head({ status, contentType: contentType.trim().toLowerCase() }) === 'rewrite'
  }

  #filterChunk(filter: ResponseFilter, chunk: Buffer): Buffer | undefined {
    try {
      return filter.chunk(chunk)
    } catch (error) {
      return this.#filterFailed(error)
    }
  }

  #endFilter(filter: ResponseFilter): Buffer | undefined {
    try {
      return filter.end()
    } catch (error) {
      return this.#filterFailed(error)
    }
  }

  /** An answer that could not be looked at whole is not passed on in part. */
  #filterFailed(error: unknown): undefined {
    const code = errorCode(error)
    if (!this.#res.headersSent) this.#refuse(deny('upstream-unreachable', code))
    else {
      this.#failure = code
      resetClient(this.#res)
      this.#controller?.abort(abortion)
    }
    return undefined
  }

  /** The agent's side is over, whoever ended it. */
  closed(): void {
    const { exchange } = this.#options
    const res = this.#res
    const isComplete = res.writableFinished
    if (!this.#req.complete) discardRest(this.#req)
    if (!isComplete) this.#controller?.abort(abortion)
    const status = res.headersSent ? res.statusCode : null
    const error = this.#failure
    if (exchange.cut) return this.#resolve({ status, end: 'cut' })
    if (error !== undefined) return this.#resolve({ status, end: 'upstream-failed', error })
    if (isComplete) return this.#resolve({ status, end: 'complete' })
    const { errored } = this.#req
    const gone = errored instanceof RequestBodyError ? { error: errored.code } : {}
    this.#resolve({ status, end: 'client-gone', ...gone })
  }
}

/** How long an agent may go on sending a body whose answer it already has. */
const lingerMs = 1_000

/** The rest of a body must never be read as a next request: it is thrown away, or the connection ends. */
function discardRest(req: IncomingMessage): void {
  const { socket } = req
  if (socket.destroyed) return
  // A listener, because `resume()` does nothing while the upstream's side still waits for a next piece.
  req.on('data', () => undefined)
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  timer.unref()
  req.once('close', () => clearTimeout(timer))
}

/** One value for all aborts: a stack per cut stream would be the dearest part of a cut. */
const abortion = new Error('The exchange is over')

/** The answer's fields as they came: the parsed map would join or drop repeated ones. */
export function rawFields({
  rawHeaders,
}: Dispatcher.DispatchController): readonly string[] | readonly Buffer[] {
  return Array.isArray(rawHeaders) ? rawHeaders : []
}

/** RST, not FIN: a client that reads until close would take a FIN for the end of the answer (RFC 9112 section 8). */
function resetClient(res: ServerResponse): void {
  res.socket?.resetAndDestroy()
}

/** We asked for no encoding: what comes encoded all the same cannot be looked at. */
function isEncoded(headers: readonly string[]): boolean {
  const coding = fieldValue(headers, 'content-encoding')
  return coding !== undefined && coding.toLowerCase() !== 'identity'
}

function contentLength(headers: readonly string[]): number | undefined {
  const value = fieldValue(headers, 'content-length')
  return value === undefined ? undefined : Number(value)
}

function fieldValue(headers: readonly string[], name: string): string | undefined {
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const field = headers[index]
    if (field?.length === name.length && field.toLowerCase() === name) return headers[index + 1]
  }
  return undefined
}

function withoutField(headers: string[], name: string): void {
  for (let index = headers.length - 2; index >= 0; index -= 2) {
    if (headers[index]?.toLowerCase() === name) headers.splice(index, 2)
  }
}

/** The library's or the system's short code: messages may quote what the upstream sent. */
function errorCode(error: unknown): string {
  if (!(error instanceof Error)) return 'ERR_UNKNOWN'
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
