import type { LookupFunction } from 'node:net'
import Dispatcher from 'undici/lib/dispatcher/dispatcher.js'
import type { UpstreamConfig } from '../config/schema.ts'
import { dial } from './dial.ts'
import { Http1Call } from './http1-call.ts'
import { Http1Link, type Http1LinkOwner } from './http1-link.ts'
import { UpstreamLinkError } from './upstream-link-error.ts'

export interface Http1DispatcherOptions {
  readonly config: Pick<UpstreamConfig, 'connectTimeout' | 'headersTimeout' | 'maxConnections'>
  /** PEM of the authority that signs the upstream, instead of the public web PKI. */
  readonly ca: string | undefined
  /** Checks the addresses that are dialled. */
  readonly lookup?: LookupFunction
}

/** How often connections are looked at for what waits too long. */
const checkMs = 250

/**
 * Sends requests over a bounded number of HTTP/1.1 connections, each carrying one at a time. Tells handlers what undici's
 * own dispatchers would tell them. What finds no connection waits for one: the limit on exchanges in flight bounds it.
 */
export class Http1Dispatcher extends Dispatcher implements Http1LinkOwner {
  readonly host: string
  readonly headersTimeoutMs: number
  readonly #origin: URL
  readonly #options: Http1DispatcherOptions
  readonly #links = new Set<Http1Link>()
  /** The last one to be used is the first to be used again: the others grow old. */
  readonly #idle: Http1Link[] = []
  readonly #waiting: Http1Call[] = []
  /** Connections that take their next request at the end of this turn. */
  #starting: Http1Link[] = []
  #check: NodeJS.Timeout | undefined
  /** Of the last connection: the next one resumes it. */
  #session: Buffer | undefined
  #isDestroyed = false
  #closing: PromiseWithResolvers<void> | undefined

  constructor(origin: URL, options: Http1DispatcherOptions) {
    super()
    this.host = origin.host
    this.headersTimeoutMs = options.config.headersTimeout
    this.#origin = origin
    this.#options = options
  }

  override dispatch(
    request: Dispatcher.DispatchOptions,
    handler: Dispatcher.DispatchHandler,
  ): boolean {
    const call = new Http1Call(request, handler)
    if (this.#closing) call.fail(closedError())
    else this.#assign(call)
    return true
  }

  /** Lets what is in flight end. */
  override close(): Promise<void> {
    const closing = (this.#closing ??= Promise.withResolvers<void>())
    for (const link of this.#idle.splice(0)) link.drop()
    this.#settle()
    return closing.promise
  }

  override destroy(): Promise<void> {
    this.#isDestroyed = true
    const closing = (this.#closing ??= Promise.withResolvers<void>())
    for (const call of this.#waiting.splice(0)) call.fail(closedError())
    for (const link of this.#links) link.end(closedError())
    this.#settle()
    return closing.promise
  }

  // What connections tell.

  free(link: Http1Link): void {
    const call = this.#waiting.shift()
    if (call) this.#start(link, call)
    else if (this.#closing) link.drop()
    else this.#idle.push(link)
  }

  gone(link: Http1Link): void {
    this.#links.delete(link)
    const index = this.#idle.lastIndexOf(link)
    if (index !== -1) this.#idle.splice(index, 1)
    const call = this.#waiting.shift()
    if (call) this.#assign(call)
    this.#settle()
  }

  unsent(call: Http1Call): void {
    if (this.#isDestroyed) call.fail(closedError())
    else this.#assign(call)
  }

  #assign(call: Http1Call): void {
    const link = this.#idle.pop()
    if (link) this.#start(link, call)
    else if (this.#links.size < this.#options.config.maxConnections) this.#open(call)
    else this.#waiting.push(call)
  }

  /**
   * Not in this turn: what the upstream sent behind its last answer, or its end, may be there and not yet read. It must
   * not be taken for the answer to this request (GHSA-35p6-xmwp-9g52 in undici).
   */
  #start(link: Http1Link, call: Http1Call): void {
    link.take(call)
    this.#starting.push(link)
    if (this.#starting.length === 1) setImmediate(this.#sendAll)
  }

  readonly #sendAll = (): void => {
    const links = this.#starting
    this.#starting = []
    for (const link of links) link.send()
  }

  #open(call: Http1Call): void {
    const { config, ca, lookup } = this.#options
    const link = new Http1Link(this, {
      call,
      open: (events) =>
        dial(this.#origin, {
          connectTimeoutMs: config.connectTimeout,
          ca,
          ...(lookup && { lookup }),
          protocol: 'http/1.1',
          session: this.#session,
          ...events,
        }).on('session', (session: Buffer) => {
          this.#session = session
        }),
    })
    this.#links.add(link)
    this.#check ??= setInterval(() => this.#checkLinks(), checkMs).unref()
  }

  #checkLinks(): void {
    const nowMs = performance.now()
    for (const link of this.#links) link.check(nowMs)
  }

  #settle(): void {
    if (this.#links.size > 0) return
    clearInterval(this.#check)
    this.#check = undefined
    if (this.#waiting.length === 0) this.#closing?.resolve()
  }
}

function closedError(): UpstreamLinkError {
  return new UpstreamLinkError('ERR_UPSTREAM_CLOSED', 'The connections to the upstream are closed')
}
