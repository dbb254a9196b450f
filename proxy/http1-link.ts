import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { AnswerParser, type AnswerSink, type ParsedHead } from './answer-parser.ts'
import type { Http1Call } from './http1-call.ts'
import { requestHead, statedLength } from './request-head.ts'
import { Upload } from './upload.ts'
import { UpstreamLinkError } from './upstream-link-error.ts'

/** What a connection tells the pool that it belongs to. */
export interface Http1LinkOwner {
  /** Of the upstream, for a request that names none. */
  readonly host: string
  readonly headersTimeoutMs: number
  /** It can carry a request. */
  free(link: Http1Link): void
  /** It is closed, or carries a protocol that is not HTTP any more. */
  gone(link: Http1Link): void
  /** A request that was to go out on it has not: not one byte was sent. */
  unsent(call: Http1Call): void
}

export interface DialEvents {
  connected(): void
  fail(error: Error): void
}

/** How long a connection stays open without a request, when the upstream does not say how long it waits. */
const idleMs = 4_000
/** The request must be there before the upstream's own time is up. */
const hintMarginMs = 2_000
const maxIdleMs = 60_000

/** One connection to an upstream: carries one exchange at a time, and is closed at whatever does not belong to it. */
export class Http1Link implements AnswerSink {
  readonly #owner: Http1LinkOwner
  readonly #parser = new AnswerParser(this)
  readonly #socket: Socket
  #call: Http1Call | undefined
  #upload: Upload | undefined
  #isConnected = false
  #isSent = false
  /** Something came since the request was sent. */
  #isAnswered = false
  #hasHead = false
  #keepsAlive = true
  #requests = 0
  #idleMs = idleMs
  /** When it was last used, or its request last went on; monotonic. */
  #sinceMs = performance.now()
  #isGone = false

  /** Opens a connection for this request. */
  constructor(
    owner: Http1LinkOwner,
    {
      call,
      open,
    }: {
      readonly call: Http1Call
      readonly open: (events: DialEvents) => Socket
    },
  ) {
    this.#owner = owner
    this.#call = call
    this.#socket = open({
      connected: () => this.#connected(),
      fail: (error) => this.#lost(error),
    })
    this.#socket
      .on('data', this.#onData)
      .on('drain', this.#onDrain)
      .on('end', this.#onEnd)
      .on('error', this.#onError)
      .on('close', this.#onClose)
  }

  /** Takes a request; `send()` is to follow. */
  take(call: Http1Call): void {
    this.#call = call
  }

  /** Writes what it took, unless it was lost in between. */
  send(): void {
    const call = this.#call
    if (!call || this.#isGone) return
    if (!call.begin(this)) return
    this.#isSent = true
    this.#isAnswered = false
    this.#hasHead = false
    this.#requests += 1
    this.#sinceMs = performance.now()
    try {
      this.#write(call)
    } catch (error) {
      this.#lost(error instanceof Error ? error : new TypeError('Expected an error'))
    }
  }

  pause(): void {
    this.#parser.isPaused = true
    this.#socket.pause()
  }

  resume(): void {
    this.#parser.isPaused = false
    this.#read(nothing)
    // An answer that goes on may have been paused again by what was held back.
    if (this.#call?.paused !== true) this.#socket.resume()
  }

  /** Closes it without a word to its request. A kept one that had not sent it yet is as good as before. */
  drop(): void {
    const isClean = this.#call !== undefined && !this.#isSent && this.#requests > 0
    this.#call = undefined
    if (isClean) this.#owner.free(this)
    else this.#close()
  }

  /** Closes it, and tells its request. */
  end(error: Error): void {
    this.#lost(error)
  }

  /** Ends what waits for too long. Expected to be called a few times a second. */
  check(nowMs: number): void {
    const waitedMs = nowMs - this.#sinceMs
    if (!this.#call) {
      if (waitedMs > this.#idleMs) this.#close()
      return
    }
    if (!this.#isSent || this.#hasHead || waitedMs <= this.#owner.headersTimeoutMs) return
    // While the agent is still sending, its own limit counts.
    if (this.#upload && !this.#socket.writableNeedDrain) return
    this.#lost(new UpstreamLinkError('ERR_UPSTREAM_TIMEOUT', 'No answer in time'))
  }

  // What the parser tells.

  answerHead(head: ParsedHead): void {
    const call = this.#call
    if (!call) return
    if (head.status === 101) return this.#switch(call, head)
    if (head.status >= 200) {
      this.#hasHead = true
      this.#keepsAlive = head.keepsAlive && !call.isUpgrade
      this.#idleMs = idleTimeMs(head.keepAliveSeconds)
    } else this.#sinceMs = performance.now()
    call.head(head)
  }

  answerBody(piece: Buffer): void {
    const call = this.#call
    call?.handler.onResponseData?.(call, piece)
  }

  answerEnd(trailers: string[]): void {
    const call = this.#call
    this.#call = undefined
    call?.end(trailers)
  }

  #connected(): void {
    this.#isConnected = true
    this.#socket.unref()
    this.send()
  }

  #write(call: Http1Call): void {
    const { request } = call
    const { body } = request
    this.#parser.begin({ method: request.method, upgrade: call.isUpgrade })
    const { host } = this.#owner
    const socket = this.#socket
    if (body instanceof Readable) {
      const length = statedLength(request.headers)
      this.#writeHead(requestHead(request, { framing: length ?? 'chunked', host }))
      this.#upload = this.#sendBody(body, length)
    } else if (Buffer.isBuffer(body)) {
      socket.cork()
      socket.write(requestHead(request, { framing: body.length, host }), 'latin1')
      socket.write(body)
      socket.uncork()
    } else if (body) throw new TypeError('Expected a body of bytes, or a stream')
    else socket.write(requestHead(request, { framing: 'none', host }), 'latin1')
  }

  /** With the first piece of the body when that is there already, and alone when it is not. */
  #writeHead(head: string): void {
    this.#socket.cork()
    this.#socket.write(head, 'latin1')
    setImmediate(() => this.#socket.uncork())
  }

  #sendBody(body: Readable, length: number | undefined): Upload {
    return new Upload(this.#socket, {
      body,
      length,
      progress: () => {
        this.#sinceMs = performance.now()
      },
      done: () => {
        this.#upload = undefined
        this.#sinceMs = performance.now()
      },
      fail: (error) => this.#lost(error),
    })
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#isGone) return
    // RFC 9112 section 9.2: what nobody asked for must not become the answer to the next.
    if (!this.#isSent) return this.#lost(closedError())
    this.#isAnswered = true
    this.#read(chunk)
  }

  #read(chunk: Buffer): void {
    try {
      this.#parser.push(chunk)
    } catch (error) {
      return this.#lost(error instanceof Error ? error : new TypeError('Expected an error'))
    }
    if (this.#isSent && !this.#call && !this.#isGone) this.#ended()
  }

  /** The answer is whole. */
  #ended(): void {
    this.#isSent = false
    const isWholeRequest = this.#upload === undefined
    const surplus = this.#parser.takeRest().length
    if (!this.#keepsAlive || !isWholeRequest || surplus > 0 || this.#idleMs <= 0) {
      return this.#close()
    }
    // A pause of the answer that is over does not hold for the next.
    if (this.#socket.isPaused()) this.#socket.resume()
    this.#sinceMs = performance.now()
    this.#owner.free(this)
  }

  #switch(call: Http1Call, { fields }: ParsedHead): void {
    const socket = this.#socket
    this.#call = undefined
    this.#isGone = true
    this.#owner.gone(this)
    socket.pause()
    socket
      .off('data', this.#onData)
      .off('drain', this.#onDrain)
      .off('end', this.#onEnd)
      .off('error', this.#onError)
      .off('close', this.#onClose)
    // The parser has yet to return, and what it did not read belongs to the other protocol.
    queueMicrotask(() => {
      const surplus = this.#parser.takeRest()
      if (surplus.length > 0) socket.unshift(surplus)
      socket.ref()
      call.switched(socket, fields)
      socket.resume()
    })
  }

  readonly #onDrain = (): void => {
    this.#upload?.drained()
  }

  readonly #onEnd = (): void => {
    if (!this.#isAnswered || !this.#isSent) return this.#lost(closedError())
    try {
      this.#parser.finish()
      this.#close()
    } catch (error) {
      this.#lost(error instanceof Error ? error : new TypeError('Expected an error'))
    }
  }

  readonly #onError = (error: Error): void => {
    this.#lost(error)
  }

  readonly #onClose = (): void => {
    this.#lost(closedError())
  }

  #lost(error: Error): void {
    const call = this.#call
    this.#call = undefined
    const wasFresh = this.#requests <= 1
    this.#close()
    if (!call) return
    if (this.#isConnected && !this.#isSent) return this.#owner.unsent(call)
    const isStale = !wasFresh && !this.#isAnswered && isClosing(error)
    call.fail(isStale ? staleError() : error)
  }

  #close(): void {
    if (this.#isGone) return
    this.#isGone = true
    this.#parser.stop()
    this.#upload?.cancel()
    this.#upload = undefined
    this.#owner.gone(this)
    this.#socket.destroy()
  }
}

const nothing = Buffer.alloc(0)

function idleTimeMs(seconds: number | undefined): number {
  if (seconds === undefined) return idleMs
  return Math.min(seconds * 1000 - hintMarginMs, maxIdleMs)
}

/** Whether the upstream closed it, which it may do at any time between two requests (RFC 9112 section 9.3.1). */
function isClosing(error: Error): boolean {
  const code = 'code' in error ? error.code : undefined
  return code === 'ERR_UPSTREAM_CLOSED' || code === 'ECONNRESET' || code === 'EPIPE'
}

function closedError(): UpstreamLinkError {
  return new UpstreamLinkError('ERR_UPSTREAM_CLOSED', 'The upstream closed the connection')
}

function staleError(): UpstreamLinkError {
  const message = 'The upstream closed a kept connection without an answer'
  return new UpstreamLinkError('ERR_UPSTREAM_STALE', message)
}
