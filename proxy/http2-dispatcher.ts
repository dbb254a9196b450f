import { connect, type ClientHttp2Session } from 'node:http2'
import type { LookupFunction } from 'node:net'
import Dispatcher from 'undici/lib/dispatcher/dispatcher.js'
import type { UpstreamConfig } from '../config/schema.ts'
import { dial } from './dial.ts'
import { Http2Call, type Http2CallRequest } from './http2-call.ts'
import { UpstreamLinkError } from './upstream-link-error.ts'

export interface Http2DispatcherOptions {
  readonly config: Pick<UpstreamConfig, 'connectTimeout' | 'headersTimeout' | 'maxConnections'>
  /** PEM of the authority that signs the upstream, instead of the public web PKI. */
  readonly ca: string | undefined
  /** Checks the addresses that are dialled. */
  readonly lookup?: LookupFunction
}

/** Streams on one connection, when the upstream allows more. */
const maxStreams = 100
/** How often a connection is looked at: asked for a sign of life while it carries something, closed when it did not. */
const checkMs = 20_000

interface Link {
  readonly session: ClientHttp2Session
  streams: number
  /** A stream began since the last look. */
  isUsed: boolean
  isAsked: boolean
}

/**
 * Sends requests over a bounded number of HTTP/2 connections, each carrying many of them. Tells handlers what undici's
 * own dispatchers would tell them.
 */
export class Http2Dispatcher extends Dispatcher {
  readonly #origin: URL
  readonly #options: Http2DispatcherOptions
  readonly #links = new Set<Link>()

  constructor(origin: URL, options: Http2DispatcherOptions) {
    super()
    this.#origin = origin
    this.#options = options
  }

  override dispatch(request: Http2CallRequest, handler: Dispatcher.DispatchHandler): boolean {
    const call = new Http2Call(request, {
      handler,
      scheme: this.#origin.protocol === 'https:' ? 'https' : 'http',
      headersTimeoutMs: this.#options.config.headersTimeout,
    })
    if (!call.begin()) return true
    const link = this.#pick()
    const stream = call.send(link.session)
    link.streams += 1
    link.isUsed = true
    stream.once('close', () => {
      link.streams -= 1
    })
    return true
  }

  /** Lets what is in flight end. */
  override async close(): Promise<void> {
    await Promise.all([...this.#links].map(({ session }) => over(session, () => session.close())))
  }

  override async destroy(): Promise<void> {
    await Promise.all([...this.#links].map(({ session }) => over(session, () => session.destroy())))
  }

  /** The connection with the fewest streams that has room, else a new one, else the one with the fewest: it queues. */
  #pick(): Link {
    let best: Link | undefined
    for (const link of this.#links) {
      const { session } = link
      if (session.closed || session.destroyed) continue
      if (!best || link.streams < best.streams) best = link
    }
    const hasRoom = best !== undefined && best.streams < roomOf(best.session)
    if (best && (hasRoom || this.#links.size >= this.#options.config.maxConnections)) return best
    return this.#open()
  }

  #open(): Link {
    const options = {
      createConnection: () =>
        dial(this.#origin, {
          connectTimeoutMs: this.#options.config.connectTimeout,
          ca: this.#options.ca,
          ...(this.#options.lookup && { lookup: this.#options.lookup }),
          protocol: 'h2',
          // Node aborts the process over a session whose socket is gone in the moment that it connects.
          fail: (error) => session.destroy(error),
        }),
      settings: { enablePush: false },
      strictSingleValueFields: false,
      // One table for all tasks would let one probe what another sends, its credential above all (RFC 7541 section 7.1).
      maxDeflateDynamicTableSize: 0,
    }
    const session: ClientHttp2Session = connect(this.#origin, options)
    const link: Link = { session, streams: 0, isUsed: true, isAsked: false }
    const check = setInterval(() => checkLink(link), checkMs)
    check.unref()
    this.#links.add(link)
    // Each stream that it ends is told by itself.
    session.on('error', () => undefined)
    session.on('close', () => {
      clearInterval(check)
      this.#links.delete(link)
    })
    // An upstream that pushes answers to nothing that was asked.
    session.on('stream', (pushed) => pushed.destroy())
    return link
  }
}

/** Ends a session and waits for its end. */
function over(session: ClientHttp2Session, end: () => void): Promise<void> {
  return new Promise((resolve) => {
    session.once('close', resolve)
    end()
  })
}

function roomOf(session: ClientHttp2Session): number {
  return Math.min(session.remoteSettings.maxConcurrentStreams ?? maxStreams, maxStreams)
}

function checkLink(link: Link): void {
  const { session } = link
  if (link.streams === 0 && !link.isUsed) return session.close()
  link.isUsed = false
  if (link.streams === 0 || session.connecting || session.closed) return
  if (link.isAsked) {
    session.destroy(new UpstreamLinkError('ERR_UPSTREAM_PING', 'The upstream is silent'))
    return
  }
  link.isAsked = true
  session.ping((error) => {
    link.isAsked = error !== null
  })
}
