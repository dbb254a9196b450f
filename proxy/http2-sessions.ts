import type { IncomingHttpHeaders } from 'node:http'
import {
  constants,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { Socket } from 'node:net'
import type { Config } from '../config/schema.ts'
import type { Arrival } from './arrival.ts'
import { maxFields } from './gate.ts'
import { Http2Request, Http2Response } from './http2-arrival.ts'

/** The agents' connections that speak HTTP/2. */
export interface Http2Sessions {
  /** Takes over a socket whose first bytes are the preface. */
  accept(socket: Socket): void
  /** GOAWAY on every connection: what is in flight ends, nothing new begins. */
  close(): void
  /** Closes connections without a stream. */
  closeIdle(): void
}

interface Http2SessionsOptions {
  /** Serves one stream. It is expected not to reject; when it does, the stream is reset. */
  handle(arrival: Arrival): Promise<void>
  fault(error: unknown): void
  /** A connection was ended because what came on it was no HTTP/2, or too much of it. */
  readonly unread: () => void
  readonly limits: Config['limits']
  /** How long a connection may live without a stream. */
  readonly idleMs: number
}

/** Streams that one connection may have open. */
const maxStreams = 100
/** What may still be under way for streams that the agent has reset already, before its connection is ended. */
const maxRunning = 150
/** Resets that an agent may send at once, and then per second (CVE-2023-44487): above it the connection ends with GOAWAY. */
const resetBurst = 200
const resetsPerSecond = 33
const pseudoFields = 4
/** Node takes the code only beside an error. */
const tooMuch = new Error('Too many requests are under way on one connection')
/** Why the parser ends a connection. */
const refusals: ReadonlySet<string | undefined> = new Set([
  'ERR_HTTP2_ERROR',
  'ERR_HTTP2_TOO_MANY_INVALID_FRAMES',
])
/** After GOAWAY: for the agent to close. */
const lingerMs = 1_000

/** Serves HTTP/2 on sockets that a listener has accepted. */
export function createHttp2Sessions(options: Http2SessionsOptions): Http2Sessions {
  const sessions = new Set<AgentSession>()
  return {
    accept(socket) {
      const session = new AgentSession(socket, options)
      sessions.add(session)
      socket.once('close', () => sessions.delete(session))
    },
    close() {
      for (const session of sessions) session.close()
    },
    closeIdle() {
      for (const session of sessions) if (session.isIdle) session.close()
    },
  }
}

class AgentSession {
  readonly #options: Http2SessionsOptions
  readonly #socket: Socket
  readonly #session: ServerHttp2Session
  #idleTimer: NodeJS.Timeout | undefined
  /** Streams that are open. */
  #open = 0
  /** Streams that are being served, also those that the agent has reset. */
  #running = 0

  constructor(socket: Socket, options: Http2SessionsOptions) {
    this.#options = options
    this.#socket = socket
    // A listener of HTTP/1 keeps a socket whose agent has ended its side: here nobody would ever end ours.
    socket.allowHalfOpen = false
    this.#session = performServerHandshake(socket, sessionOptions(options.limits))
    this.#session.on('error', (error: Error & { code?: string }) => {
      if (error === tooMuch || refusals.has(error.code)) options.unread()
      socket.destroy()
    })
    this.#session.on('stream', (stream, headers, _flags, raw) =>
      this.#serve(stream, { headers, raw }),
    )
    // A client that says no more than the preface holds its connection no longer than one that sends half a head.
    this.#closeAfter(options.limits.headTimeout)
    this.#session.once('remoteSettings', () => this.#armIdle())
    socket.once('close', () => clearTimeout(this.#idleTimer))
  }

  get isIdle(): boolean {
    return this.#open === 0
  }

  close(): void {
    if (this.#session.destroyed || this.#session.closed) return
    this.#session.close()
    this.#armIdle()
  }

  #serve(
    stream: ServerHttp2Stream,
    head: { readonly headers: IncomingHttpHeaders; readonly raw: readonly string[] },
  ): void {
    const req = new Http2Request(stream, head)
    const { answerGapTimeout: answerGapTimeoutMs } = this.#options.limits
    const res = new Http2Response(stream, { req, answerGapTimeoutMs })
    this.#open += 1
    clearTimeout(this.#idleTimer)
    stream.once('close', () => {
      this.#open -= 1
      this.#armIdle()
    })
    if (this.#running >= maxRunning) {
      return this.#session.destroy(tooMuch, constants.NGHTTP2_ENHANCE_YOUR_CALM)
    }
    void this.#run({ req, res })
  }

  async #run(arrival: { readonly req: Http2Request; readonly res: Http2Response }): Promise<void> {
    this.#running += 1
    try {
      await this.#options.handle(arrival)
    } catch (error) {
      this.#options.fault(error)
      arrival.res.reset()
    } finally {
      this.#running -= 1
    }
  }

  #armIdle(): void {
    if (this.#open > 0) return
    if (this.#session.closed) this.#endSocket()
    else this.#closeAfter(this.#options.idleMs)
  }

  #closeAfter(ms: number): void {
    clearTimeout(this.#idleTimer)
    this.#idleTimer = setTimeout(() => this.close(), ms)
    this.#idleTimer.unref()
  }

  /** The session's own end waits for the agent to end its side. */
  #endSocket(): void {
    clearTimeout(this.#idleTimer)
    this.#idleTimer = setTimeout(() => this.#socket.destroy(), lingerMs)
    this.#idleTimer.unref()
  }
}

function sessionOptions({ maxHeadBytes }: Config['limits']) {
  return {
    settings: {
      enablePush: false,
      maxConcurrentStreams: maxStreams,
      maxHeaderListSize: maxHeadBytes,
      // RFC 8441: a WebSocket in a stream would be a tunnel.
      enableConnectProtocol: false,
    },
    // Above the gate's own limit, which answers in our words.
    maxHeaderListPairs: maxFields + pseudoFields + 1,
    maxSessionInvalidFrames: 100,
    maxSessionRejectedStreams: 100,
    streamResetBurst: resetBurst,
    streamResetRate: resetsPerSecond,
    strictSingleValueFields: false,
  }
}
