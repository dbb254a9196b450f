import type { Dispatcher } from 'undici'
import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import {
  discardRest,
  endWithFinal,
  resetClient,
  sendContinue,
  takesTrailers,
} from './agent-side.ts'
import {
  contentLength,
  fieldValue,
  findAnswerProblem,
  findRejection,
  isEncoded,
  rawFields,
  rawTrailers,
  withoutField,
  type AnswerHead,
} from './answer-head.ts'
import type { AgentRequest, AgentResponse } from './arrival.ts'
import { errorCode } from './error-code.ts'
import type { Cut, CutHow } from './exchange.ts'
import type { ForwardOptions, ForwardOutcome } from './forward-options.ts'
import { trailerFields } from './headers.ts'
import { endsWithHead, http2CodeOf, type Http2CallRequest } from './http2-call.ts'
import { maxInterim, sendEarlyHints } from './interim.ts'
import { requestBody, RequestBodyError } from './request-body.ts'
import type { ResponseFilter } from './response-filter.ts'

export type { ForwardOptions, ForwardOutcome } from './forward-options.ts'

/**
 * Sends one request and streams the answer back, with back-pressure both ways. Resolves when the agent's side is over:
 * complete, cut, gone or failed. A broken answer is a reset, never a clean end.
 */
export function forward(
  req: AgentRequest,
  res: AgentResponse,
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
/** Up to this size it does so as one text, which Node writes without allocating. */
const textAnswerBytes = 8_192

class Forwarding implements Dispatcher.DispatchHandler {
  readonly #req: AgentRequest
  readonly #res: AgentResponse
  readonly #options: ForwardOptions
  readonly #resolve: (outcome: ForwardOutcome) => void
  #controller: Dispatcher.DispatchController | undefined
  /** Held until the first bytes, when the whole answer is small or is looked at. */
  #head: AnswerHead | undefined
  #answerLength: number | undefined
  #filter: ResponseFilter | undefined
  /** Set when the answer cannot be completed any more. */
  #failure: string | undefined
  #interimCount = 0
  #isRetried = false
  #refused = false
  #ended = false

  constructor(context: {
    readonly req: AgentRequest
    readonly res: AgentResponse
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
    if (body === 'stream') sendContinue(this.#req, this.#res)
    const request: Http2CallRequest = {
      path: target,
      method,
      headers,
      body: requestBody(this.#req, { body, exchange, gapTimeoutMs: bodyGapTimeoutMs }),
      trailers: () => this.#options.requestTrailers(this.#req.rawTrailers),
    }
    client.dispatcher.dispatch(request, this)
  }

  // What the upstream client tells, in its order.

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
    if (this.#isOver()) return
    if (status < 200) return this.#passInterim(controller, status)
    const raw = rawFields(controller)
    const problem = findAnswerProblem(status, raw)
    if (problem !== undefined) return this.#refuse(deny('upstream-unreachable', problem))
    const headers = this.#options.responseHeaders(raw)
    const rejected = this.#options.hasCredential ? findRejection(status, headers) : undefined
    if (rejected !== undefined) return this.#refuse(deny('upstream-credential-rejected', rejected))
    this.#answerLength = endsWithHead(controller) ? 0 : contentLength(headers)
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
    const filter = this.#filter
    const bytes = filter ? this.#filtered(() => filter.chunk(chunk)) : chunk
    if (bytes === undefined || bytes.length === 0) return
    exchange.bytesDown += bytes.length
    const isWhole =
      this.#head !== undefined &&
      !filter &&
      bytes.length === this.#answerLength &&
      !takesTrailers(this.#req)
    this.#sendHead({ flush: false })
    if (isWhole) {
      this.#ended = true
      // Node writes a text together with its head; for bytes it makes a list, which costs the kernel more.
      if (bytes.length <= textAnswerBytes)
        return void this.#res.end(bytes.toString('latin1'), 'latin1')
      return void this.#res.end(bytes)
    }
    if (!this.#res.write(bytes)) {
      controller.pause()
      this.#res.once('drain', () => controller.resume())
    }
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    if (this.#isOver() || this.#ended) return
    const filter = this.#filter
    const rest = filter ? this.#filtered(() => filter.end()) : undefined
    if (this.#isOver()) return
    this.#sendHead({ flush: false })
    if (rest) this.#options.exchange.bytesDown += rest.length
    this.#ended = true
    if (!filter && takesTrailers(this.#req)) {
      this.#res.addTrailers(trailerFields(rawTrailers(controller)))
    }
    this.#res.end(rest)
  }

  onResponseError(_controller: unknown, error: Error): void {
    if (this.#isOver() || this.#ended) return
    // The agent's fault, not the upstream's: `closed()` says which.
    if (error instanceof RequestBodyError) return resetClient(this.#res)
    const code = errorCode(error)
    if (this.#isRetryable(code)) return this.#retry()
    if (!this.#res.headersSent) return this.#refuse(deny('upstream-unreachable', code))
    this.#failure = code
    resetClient(this.#res, http2CodeOf(error))
  }

  #passInterim(controller: Dispatcher.DispatchController, status: number): void {
    this.#interimCount += 1
    if (this.#interimCount > maxInterim) {
      return this.#refuse(deny('upstream-unreachable', 'ERR_INTERIM_ANSWERS'))
    }
    const headers = this.#options.responseHeaders(rawFields(controller))
    if (status === 103) sendEarlyHints(this.#res, { req: this.#req, headers })
  }

  #isRetryable(code: string): boolean {
    const { method, body } = this.#options
    if (this.#isRetried || body !== 'none' || !isResendable(method)) return false
    return !this.#head && !this.#res.headersSent && untakenCodes.has(code)
  }

  #retry(): void {
    this.#isRetried = true
    // The connection is still being taken down. A revocation may land before the turn comes.
    setImmediate(() => {
      if (!this.#isOver()) this.dispatch()
    })
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
      endWithFinal(res, final)
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

  #filtered(look: () => Buffer | undefined): Buffer | undefined {
    try {
      return look()
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

/** RFC 9110 section 9.2.2: a request that may be sent again when nobody has taken it. */
function isResendable(method: string): boolean {
  return method === 'GET' || method === 'HEAD' || method === 'OPTIONS'
}

const untakenCodes: ReadonlySet<string> = new Set([
  'ERR_UPSTREAM_STALE',
  'ERR_UPSTREAM_REFUSED_STREAM',
])

/** One value for all aborts: a stack per cut stream would be the dearest part of a cut. */
const abortion = new Error('The exchange is over')
