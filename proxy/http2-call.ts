import { constants, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2'
import { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { sendTrailers } from './send-trailers.ts'

/** An upstream ended a stream before its answer was whole. */
export class UpstreamStreamError extends Error {
  override readonly name = 'UpstreamStreamError'
  readonly code: 'ERR_UPSTREAM_STREAM' | 'ERR_UPSTREAM_REFUSED_STREAM' | 'ERR_UPSTREAM_TIMEOUT'
  /** RFC 9113 section 7. */
  readonly http2Code: number
  constructor(code: UpstreamStreamError['code'], http2Code: number) {
    super(`The upstream's stream ended with code ${http2Code}`)
    this.code = code
    this.http2Code = http2Code
  }
}

export interface Http2CallRequest extends Dispatcher.DispatchOptions {
  /** What stands behind a body that is a stream; asked once that has ended. */
  readonly trailers?: () => readonly (readonly [name: string, value: string])[]
}

interface Http2CallOptions {
  readonly handler: Dispatcher.DispatchHandler
  readonly scheme: 'http' | 'https'
  readonly headersTimeoutMs: number
}

/** One request and its answer on a stream of their own: tells the handler what undici would. */
export class Http2Call implements Dispatcher.DispatchController {
  readonly #request: Http2CallRequest
  readonly #options: Http2CallOptions
  readonly #aborter = new AbortController()
  #stream: ClientHttp2Stream | undefined
  #failure: Error | undefined
  #timer: NodeJS.Timeout | undefined
  #isEnded = false
  reason: Error | null = null
  rawHeaders: string[] = []
  rawTrailers: string[] = []
  /** The answer ended with its head. */
  isBodiless = false

  constructor(request: Http2CallRequest, options: Http2CallOptions) {
    this.#request = request
    this.#options = options
  }

  get aborted(): boolean {
    return this.reason !== null
  }

  get paused(): boolean {
    return this.#stream?.isPaused() ?? false
  }

  /** RST_STREAM with CANCEL, and never END_STREAM before it: `close()` would make half a body look whole. */
  abort(reason: Error): void {
    if (this.reason) return
    this.reason = reason
    this.#aborter.abort()
  }

  pause(): void {
    this.#stream?.pause()
  }

  resume(): void {
    this.#stream?.resume()
  }

  /** False when the handler does not want it sent any more. */
  begin(): boolean {
    this.#options.handler.onRequestStart?.(this, {})
    return !this.aborted
  }

  send(session: ClientHttp2Session): ClientHttp2Stream {
    const { body, trailers } = this.#request
    const hasBody = body !== null && body !== undefined
    const waitForTrailers = trailers !== undefined && body instanceof Readable
    const stream = session.request(this.#head(), {
      endStream: !hasBody,
      waitForTrailers,
      signal: this.#aborter.signal,
    })
    if (waitForTrailers) stream.on('wantTrailers', () => sendTrailers(stream, trailers()))
    this.#stream = stream
    const hasWholeAnswer = followEnd(stream)
    stream.on('headers', (_, _flags, raw) => this.#interim(raw))
    stream.on('response', (_, flags, raw) => this.#answer(flags, raw))
    stream.on('trailers', (_, _flags, raw) => {
      this.rawTrailers = [...raw]
    })
    stream.on('error', (error) => {
      this.#failure ??= linkErrorOf(error)
    })
    stream.on('finish', () => this.#awaitHead())
    stream.on('close', () => this.#closed())
    stream.on('end', () => {
      if (hasWholeAnswer()) this.#end()
    })
    if (hasBody) this.#sendBody(stream, body)
    return stream
  }

  #head(): string[] {
    const { path, method, headers } = this.#request
    const flat = isFlat(headers) ? headers : []
    const head = [
      ':method',
      method,
      ':scheme',
      this.#options.scheme,
      ':authority',
      flat[1] ?? '',
      ':path',
      path,
    ]
    for (let index = 2; index + 1 < flat.length; index += 2) {
      head.push((flat[index] ?? '').toLowerCase(), flat[index + 1] ?? '')
    }
    return head
  }

  #sendBody(stream: ClientHttp2Stream, body: unknown): void {
    if (!(body instanceof Readable)) return void stream.end(body)
    body.on('error', (error) => {
      this.#failure ??= error
      this.#aborter.abort()
    })
    stream.once('close', () => body.destroy())
    body.pipe(stream)
  }

  /** From the whole request sent to the head of the answer. */
  #awaitHead(): void {
    if (this.#isEnded || this.rawHeaders.length > 0) return
    this.#timer = setTimeout(() => {
      this.#failure ??= new UpstreamStreamError('ERR_UPSTREAM_TIMEOUT', constants.NGHTTP2_CANCEL)
      this.#aborter.abort()
    }, this.#options.headersTimeoutMs)
    this.#timer.unref()
  }

  #interim(raw: readonly string[]): void {
    this.#tell(raw)
  }

  #answer(flags: number, raw: readonly string[]): void {
    clearTimeout(this.#timer)
    this.isBodiless = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0
    this.#tell(raw)
    const { handler } = this.#options
    this.#stream?.on('data', (chunk: Buffer) => handler.onResponseData?.(this, chunk))
  }

  #tell(raw: readonly string[]): void {
    const status = raw[raw.indexOf(':status') + 1]
    this.rawHeaders = raw.filter((_, index) => raw[index - (index % 2)] !== ':status')
    this.#options.handler.onResponseStart?.(this, Number(status), {}, '')
  }

  #end(): void {
    this.#isEnded = true
    clearTimeout(this.#timer)
    if (!this.aborted) this.#options.handler.onResponseEnd?.(this, {})
    // The upstream has said all that it will: what is left of the request is not for it any more.
    if (this.#stream?.writableFinished !== true) this.#aborter.abort()
  }

  #closed(): void {
    clearTimeout(this.#timer)
    if (this.#isEnded) return
    this.#isEnded = true
    this.#options.handler.onResponseError?.(this, this.#error())
  }

  #error(): Error {
    const code = this.#stream?.rstCode ?? constants.NGHTTP2_CANCEL
    const isRefused = code === constants.NGHTTP2_REFUSED_STREAM
    return (
      this.reason ??
      this.#failure ??
      new UpstreamStreamError(
        isRefused ? 'ERR_UPSTREAM_REFUSED_STREAM' : 'ERR_UPSTREAM_STREAM',
        code,
      )
    )
  }
}

/** What happened to the connection, when it is that which ended the stream. */
function linkErrorOf(error: Error & { code?: string }): Error | undefined {
  if (error.cause instanceof Error) return error.cause
  return error.code?.startsWith('ERR_HTTP2_') === true ? undefined : error
}

/** Whether the answer ended with its head: then nothing is waited for, and gRPC finds its status where it looks for it. */
export function endsWithHead(controller: Dispatcher.DispatchController): boolean {
  return controller instanceof Http2Call && controller.isBodiless
}

/** The code of HTTP/2 that an upstream ended its answer with. */
export function http2CodeOf(error: Error): number | undefined {
  return error instanceof UpstreamStreamError ? error.http2Code : undefined
}

/**
 * Whether END_STREAM came. Node ends the readable side of a stream that was reset, and of one whose connection broke, as
 * if it were whole; but it marks such a stream as closed first.
 */
function followEnd(stream: ClientHttp2Stream): () => boolean {
  let isWhole = false
  const push = stream.push.bind(stream)
  stream.push = (chunk: unknown, encoding) => {
    if (chunk === null && !stream.closed) isWhole = true
    return push(chunk, encoding)
  }
  return () => isWhole
}

function isFlat(headers: unknown): headers is readonly string[] {
  return Array.isArray(headers) && headers.every((part) => typeof part === 'string')
}
