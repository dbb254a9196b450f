import type { IncomingHttpHeaders } from 'node:http'
import { constants, type ServerHttp2Stream } from 'node:http2'
import { readHttp2Head } from './http2-head.ts'
import { sendTrailers } from './send-trailers.ts'

/** A request on an HTTP/2 stream, with those members of Node's `IncomingMessage` that the steps read. */
export class Http2Request {
  readonly httpVersion = '2.0'
  readonly method: string
  readonly url: string
  readonly rawHeaders: string[]
  readonly headers: IncomingHttpHeaders
  /** What gives the head more than one reading; undefined when it has one. */
  readonly problem: string | undefined
  /** Whether the request ended with its head. */
  readonly isEmpty: boolean
  /** Flat; empty before the body has ended. */
  rawTrailers: readonly string[] = []
  readonly #stream: ServerHttp2Stream

  constructor(
    stream: ServerHttp2Stream,
    { headers, raw }: { readonly headers: IncomingHttpHeaders; readonly raw: readonly string[] },
  ) {
    const { method, url, rawHeaders, problem } = readHttp2Head(raw)
    this.method = method
    this.url = url
    this.rawHeaders = [...rawHeaders]
    this.headers = { ...headers, host: rawHeaders[1] ?? '' }
    this.isEmpty = stream.endAfterHeaders
    // The library ends its own side of a HEAD at once, and then tells nobody of a body that breaks off.
    this.problem =
      problem ?? (method === 'HEAD' && !this.isEmpty ? 'http2: HEAD with a body' : undefined)
    this.#stream = stream
    stream.once('trailers', (_, _flags, trailers) => {
      this.rawTrailers = trailers
    })
  }

  /** Whether all of it came. Node emits 'end' for a stream that was reset, too. */
  get complete(): boolean {
    return (this.isEmpty || this.#stream.readableEnded) && !this.#stream.aborted
  }

  get destroyed(): boolean {
    return this.#stream.destroyed
  }

  get errored(): Error | null {
    return this.#stream.errored
  }

  on(event: string, listener: (told: Buffer & Error) => void): void {
    this.#stream.on(event, listener)
  }

  off(event: string, listener: (told: Buffer & Error) => void): void {
    this.#stream.off(event, listener)
  }

  iterator(options: { readonly destroyOnReturn: boolean }): AsyncIterator<unknown> {
    return this.#stream.iterator(options)
  }

  /** Resets the stream. */
  destroy(error: Error): void {
    this.#stream.destroy(error)
  }
}

/** How long an agent may go on sending a body whose answer it already has. */
const lingerMs = 1_000

/** The answer on an HTTP/2 stream, with those members of Node's `ServerResponse` that the steps use. */
export class Http2Response {
  statusCode = 200
  sendDate = false
  readonly #stream: ServerHttp2Stream
  readonly #req: Http2Request
  /** Held until there is a body or an end: an answer without a body ends with its head (gRPC's trailers-only). */
  #head: string[] | undefined
  #hasHead = false
  #trailers: readonly (readonly [string, string])[] = []
  #isEnded = false
  #isCut = false
  #isOver = false
  readonly #onClose: (() => void)[] = []
  readonly #answerGapTimeoutMs: number
  /** Writes that the agent has taken. */
  #taken = 0
  #unread: NodeJS.Timeout | undefined

  constructor(
    stream: ServerHttp2Stream,
    {
      req,
      answerGapTimeoutMs,
    }: { readonly req: Http2Request; readonly answerGapTimeoutMs: number },
  ) {
    this.#stream = stream
    this.#req = req
    this.#answerGapTimeoutMs = answerGapTimeoutMs
    stream.on('error', () => undefined)
    stream.on('close', () => {
      clearTimeout(this.#unread)
      this.#over()
    })
    stream.on('wantTrailers', () => sendTrailers(stream, this.#trailers))
  }

  get headersSent(): boolean {
    return this.#hasHead
  }

  get closed(): boolean {
    return this.#isOver || this.#stream.closed || this.#stream.destroyed
  }

  get destroyed(): boolean {
    return this.#stream.destroyed
  }

  get writableFinished(): boolean {
    return this.#isEnded && !this.#isCut && this.#stream.writableFinished
  }

  get writableLength(): number {
    return this.#stream.writableLength
  }

  writeHead(status: number, message: string | string[], headers?: string[]): void {
    const flat = headers ?? (typeof message === 'string' ? [] : message)
    this.statusCode = status
    this.#hasHead = true
    this.#head = [':status', String(status), ...withoutConnection(flat)]
  }

  flushHeaders(): void {
    this.#respond({ endStream: false })
  }

  write(chunk: Buffer): boolean {
    this.#respond({ endStream: false })
    if (!this.#isWritable()) return true
    const hasRoom = this.#stream.write(chunk, () => void (this.#taken += 1))
    this.#watchUnread()
    return hasRoom
  }

  addTrailers(trailers: readonly (readonly [string, string])[]): void {
    this.#trailers = trailers
  }

  end(chunk?: Buffer | string, encoding: BufferEncoding = 'utf8'): void {
    const stream = this.#stream
    const isBodiless =
      this.#req.method === 'HEAD' || ((chunk?.length ?? 0) === 0 && this.#trailers.length === 0)
    this.#isEnded = true
    this.#respond({ endStream: isBodiless })
    if (this.#isWritable() && !stream.writableEnded) stream.end(chunk, encoding)
    this.#watchUnread()
    if (stream.writableFinished) process.nextTick(() => this.#over())
    else stream.once('finish', () => this.#over())
    if (!this.#req.complete) this.#discardRest()
  }

  once(event: 'close' | 'drain', listener: () => void): void {
    if (event === 'close') this.#onClose.push(listener)
    else this.#stream.once(event, listener)
  }

  writeContinue(): void {
    if (this.#isWritable()) this.#stream.additionalHeaders({ ':status': 100 })
  }

  writeEarlyHints({ link }: { readonly link: string[] }): void {
    if (this.#isWritable()) this.#stream.additionalHeaders({ ':status': 103, link })
  }

  /**
   * RST_STREAM, and never END_STREAM before it: half an answer must not pass for a whole one. `close()` alone would end
   * the stream first; it does not here, because an end waits for its trailers and none are sent after a reset.
   * Without a code, or before the head, the code is INTERNAL_ERROR.
   */
  reset(code: number = constants.NGHTTP2_NO_ERROR): void {
    this.#isCut = true
    if (code === constants.NGHTTP2_NO_ERROR || !this.#stream.headersSent)
      this.#stream.destroy(cutShort)
    else this.#stream.close(code)
  }

  /** What flow control holds back waits here, not in the socket: nobody sees it from outside. */
  #watchUnread(): void {
    if (this.#unread || this.#stream.writableLength === 0) return
    const taken = this.#taken
    this.#unread = setTimeout(() => {
      this.#unread = undefined
      if (this.#taken === taken && this.#stream.writableLength > 0) this.reset()
      else this.#watchUnread()
    }, this.#answerGapTimeoutMs)
    this.#unread.unref()
  }

  #isWritable(): boolean {
    return !this.#stream.destroyed && !this.#stream.closed
  }

  #respond({ endStream }: { readonly endStream: boolean }): void {
    const head = this.#head
    this.#head = undefined
    if (!head || !this.#isWritable()) return
    const options = { endStream, waitForTrailers: !endStream, sendDate: false }
    this.#stream.respond(head, options)
  }

  /** RFC 9113 section 8.1: NO_ERROR asks for the rest of a request to be left out, once its answer is whole. */
  #discardRest(): void {
    const stream = this.#stream
    stream.resume()
    const timer = setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), lingerMs)
    timer.unref()
    stream.once('close', () => clearTimeout(timer))
  }

  #over(): void {
    if (this.#isOver) return
    this.#isOver = true
    for (const listener of this.#onClose.splice(0)) listener()
  }
}

/** One value for all: a stack per cut stream would be the dearest part of a cut. */
const cutShort = new Error('The answer was cut short')

function withoutConnection(flat: readonly string[]): string[] {
  const out: string[] = []
  for (let index = 0; index + 1 < flat.length; index += 2) {
    const name = (flat[index] ?? '').toLowerCase()
    if (name !== 'connection') out.push(name, flat[index + 1] ?? '')
  }
  return out
}
