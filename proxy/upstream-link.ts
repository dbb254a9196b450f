import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { Dispatcher } from 'undici'
import Client from 'undici/lib/dispatcher/client.js'

/** One connection to an upstream, as long as it lives. */
export interface UpstreamLink {
  socket: Socket | undefined
  /** Requests sent on it so far. */
  requests: number
}

/**
 * What one request saw of its connection. undici tells nobody which connection a request went out on, and only a
 * connection that was used before may have been closed while the request was on its way (RFC 9112 section 9.3.1).
 */
export class LinkUse {
  #link: UpstreamLink | undefined
  #socket: Socket | undefined
  #isReused = false
  #bytesBefore = 0

  take(link: UpstreamLink): void {
    this.#link = link
  }

  /** The request is about to be written. */
  start(): void {
    const link = this.#link
    this.#socket = link?.socket
    this.#isReused = (link?.requests ?? 0) > 0
    this.#bytesBefore = link?.socket?.bytesRead ?? 0
    if (link) link.requests += 1
  }

  /**
   * Whether the error says that a connection which was used before was closed, and nothing came on it since `start()`, or
   * that the upstream did not look at the request (RFC 9113 section 8.7).
   */
  wasStale(code: string): boolean {
    if (code === 'ERR_UPSTREAM_REFUSED_STREAM') return true
    const socket = this.#socket
    if (!closedCodes.has(code) || !socket || !this.#isReused) return false
    const slack = socket instanceof TLSSocket ? closeNoticeBytes : 0
    return socket.bytesRead - this.#bytesBefore <= slack
  }
}

/** RFC 9110 section 9.2.2: a request that may be sent again when its connection turns out to be closed. */
export function isResendable(method: string): boolean {
  return method === 'GET' || method === 'HEAD' || method === 'OPTIONS'
}

const closedCodes: ReadonlySet<string> = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'])
/** TLS says goodbye with a record of its own. */
const closeNoticeBytes = 64

/** A client that tells a handler with a `linkUse` which connection it got. */
export class LinkedClient extends Client {
  readonly #link: UpstreamLink

  constructor(origin: URL, { link, ...options }: Client.Options & { readonly link: UpstreamLink }) {
    super(origin, options)
    this.#link = link
  }

  override dispatch(
    options: Dispatcher.DispatchOptions,
    handler: Dispatcher.DispatchHandler,
  ): boolean {
    if ('linkUse' in handler && handler.linkUse instanceof LinkUse) handler.linkUse.take(this.#link)
    return super.dispatch(options, handler)
  }
}
