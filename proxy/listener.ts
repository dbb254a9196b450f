import { once } from 'node:events'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import type { Config, ListenTlsConfig } from '../config/schema.ts'
import type { Clock } from '../policy/types.ts'
import { checkEveryMs, createAgentServer, keepAliveMs, stopAccepting } from './agent-server.ts'
import type { Arrival, Http1Arrival } from './arrival.ts'
import { createHttp2Sessions, type Http2Sessions } from './http2-sessions.ts'
import { listenOn } from './listen-on.ts'
import { http } from './node-http.ts'
import { endWithRefusal, refusalBody, refusalFields } from './plain-refusal.ts'
import { resetConnection } from './reset-connection.ts'
import { sniffHttp2 } from './sniff-http2.ts'
import { UnreadAnswers } from './unread-answers.ts'
import type { UnreadReason } from './unread-requests.ts'

/** The agents' side of the proxy. Disposal resets whatever is still connected. */
export interface Listener extends AsyncDisposable {
  /** Binds `host:port` and gives the URL; port 0 takes a free one. Rejects with `ListenError`. */
  listen(address: string): Promise<string>
  /** Stops accepting. Answers from now on close their connection. */
  close(): void
  /** Connections that agents have open. */
  readonly connections: number
  /** Closes connections without a request in flight, and those that never sent one. */
  closeIdle(): void
}

interface ListenerOptions {
  /** Serves one request. It is expected not to reject; when it does, the connection is reset. */
  handle(arrival: Arrival): Promise<void>
  readonly limits: Config['limits']
  /** Absent: clear text. */
  readonly tls?: ListenTlsConfig
  readonly clock: Clock
  readonly log: ListenerLog
  /** Told of what was refused here, because there was no request in it to decide. */
  readonly unread?: (reason: UnreadReason) => void
  /** Whether new connections are reset unheard. Absent: never. */
  readonly isOverloaded?: () => boolean
}

/** What the listener needs of a log. */
export interface ListenerLog {
  info(fields: Readonly<Record<string, unknown>>, message: string): void
  warn(fields: Readonly<Record<string, unknown>>, message: string): void
  error(fields: Readonly<Record<string, unknown>>, message: string): void
}

/**
 * Makes the server that agents connect to: HTTP/1 and HTTP/2 on one port, told apart by ALPN or, in clear text, by prior
 * knowledge. Throws `ListenTlsError` when the certificate cannot be used.
 */
export function createListener(options: ListenerOptions): Listener {
  const connections = new Map<Socket, Connection>()
  const unread = options.unread ?? ((): void => undefined)
  const http2 = createHttp2Sessions({
    handle: (arrival) => options.handle(arrival),
    fault: (error) => logFault(options.log, error),
    unread: () => unread('malformed'),
    limits: options.limits,
    idleMs: keepAliveMs,
  })
  const unreadAnswers = new UnreadAnswers({ limitMs: options.limits.answerGapTimeout })
  const state: State = { ...options, unread, connections, http2, unreadAnswers, closing: false }
  const { server, abandonHandshakes } = createAgentServer({
    ...options,
    unread,
    isOverloaded: () => options.isOverloaded?.() ?? false,
    admit: (socket, takeHttp1) => admit(state, socket, takeHttp1),
  })
  serveHttp1(server, state)
  const watching = setInterval(resetUnread, checkEveryMs, state)
  watching.unref()
  const closeIdle = (): void => {
    http2.closeIdle()
    // Node's own way spares those that have said nothing yet, and destroys those whose answer has not left yet.
    for (const [socket, { open, isHttp2 }] of connections) {
      if (open === 0 && !isHttp2 && socket.writableLength === 0) socket.destroy()
    }
  }
  const close = (): void => {
    state.closing = true
    http2.close()
    if (server.listening) stopAccepting(server)
  }
  return {
    listen: (address) => listenOn(server, address, { scheme: options.tls ? 'https' : 'http' }),
    close,
    get connections() {
      return connections.size
    },
    closeIdle,
    async [Symbol.asyncDispose]() {
      const closed = server.listening ? once(server, 'close') : undefined
      close()
      clearInterval(watching)
      abandonHandshakes()
      // Upgraded sockets are no longer the server's: it would neither count nor close them.
      for (const socket of connections.keys()) socket.destroy()
      await closed
      // Ends Node's own look at the connections, too.
      server.close()
    },
  }
}

interface State extends ListenerOptions {
  readonly unread: (reason: UnreadReason) => void
  readonly connections: Map<Socket, Connection>
  readonly unreadAnswers: UnreadAnswers
  readonly http2: Http2Sessions
  closing: boolean
}

interface Connection {
  isHttp2: boolean
  /** Answers not yet finished; more than one when the agent pipelines. */
  open: number
  latest: Http1Arrival | undefined
}

/** How long the other side gets to close after its last answer. */
const lingerMs = 1_000

function serveHttp1(server: Server, state: State): void {
  server.on('request', (req: IncomingMessage, res: ServerResponse) => serve(state, { req, res }))
  // Without this listener Node answers 100 before anything was decided.
  server.on('checkContinue', (req, res) => serve(state, { req, res }))
  server.on('upgrade', (req, stream, head) => serveUpgrade(state, { req, stream, head }))
  server.on('connect', (_req, stream: Duplex) => {
    state.unread('connect')
    endWithRefusal(stream, 405)
  })
  server.on('checkExpectation', (req, res) => refuseExpectation(state, { req, res }))
  server.on('clientError', (error, stream) => refuseUnreadable(state, { error, stream }))
}

/**
 * Node's own listener for HTTP/1 gets the socket once its first bytes are known to be no HTTP/2. With TLS they must be
 * what ALPN has agreed on (RFC 9113 section 3.2).
 */
function admit(state: State, socket: Socket, takeHttp1: () => void): void {
  const { connections, http2, limits, unread } = state
  const connection: Connection = { isHttp2: false, open: 0, latest: undefined }
  connections.set(socket, connection)
  socket.once('close', () => connections.delete(socket))
  // After an upgrade Node listens no more, and an error without a listener ends the process.
  socket.on('error', () => socket.destroy())
  const agreed = socket instanceof TLSSocket ? socket.alpnProtocol : undefined
  sniffHttp2(socket, {
    http1() {
      if (agreed !== 'h2') return takeHttp1()
      unread('malformed')
      socket.destroy()
    },
    http2() {
      if (agreed !== undefined && agreed !== 'h2') {
        unread('malformed')
        return endWithRefusal(socket, 400)
      }
      connection.isHttp2 = true
      http2.accept(socket)
    },
    late({ isSilent }) {
      if (!isSilent) unread('late')
      endWithRefusal(socket, 408)
    },
    timeoutMs: limits.headTimeout,
  })
}

/** What an agent leaves unread holds memory here and a connection of the upstream. */
function resetUnread({ connections, unreadAnswers, clock, log }: State): void {
  const nowMs = clock.monotonic()
  let count = 0
  for (const socket of connections.keys()) {
    if (!unreadAnswers.isOverdue(socket, nowMs)) continue
    resetConnection(socket)
    count += 1
  }
  if (count > 0) log.warn({ count }, 'Connections were reset: their agents do not read')
}

function serve(state: State, arrival: Http1Arrival): void {
  const { req, res } = arrival
  const { socket } = req
  track(state, arrival)
  if (state.closing) res.shouldKeepAlive = false
  res.once('finish', () => {
    if (!req.complete) boundRest(req, state.limits.headTimeout)
  })
  res.once('close', () => {
    // RFC 9112 section 9.6: a request that began before the end of accepting still said keep-alive.
    if (state.closing && !arrival.upgrade) socket.destroySoon()
  })
  state.handle(arrival).catch((error: unknown) => {
    logFault(state.log, error)
    resetConnection(socket)
  })
}

function logFault(log: ListenerLog, error: unknown): void {
  log.error({ code: codeOf(error) }, 'A request ended in a fault and was reset')
}

function serveUpgrade(
  state: State,
  { req, stream, head }: { req: IncomingMessage; stream: Duplex; head: Buffer },
): void {
  if (!(stream instanceof Socket)) {
    stream.destroy()
    return
  }
  const res = new http.ServerResponse(req)
  res.shouldKeepAlive = false
  res.assignSocket(stream)
  // The server no longer speaks for this socket: an answer that is no 101 would leave it open.
  res.once('finish', () => endUpgraded(stream))
  serve(state, { req, res, upgrade: { socket: stream, head, res } })
}

/** Reads on for a moment after the answer: closing over unread bytes would reset the connection under it. */
function endUpgraded(socket: Socket): void {
  socket.resume()
  socket.end()
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  timer.unref()
  socket.once('close', () => clearTimeout(timer))
}

function track({ connections }: State, arrival: Http1Arrival): void {
  const connection = connections.get(arrival.req.socket)
  if (!connection) return
  connection.open += 1
  connection.latest = arrival
  arrival.res.once('close', () => {
    connection.open -= 1
    if (connection.latest === arrival) connection.latest = undefined
  })
}

/** An answer went out before the body was in: the rest may not hold the connection for ever. */
function boundRest(req: IncomingMessage, ms: number): void {
  const timer = setTimeout(() => {
    if (!req.complete) req.socket.destroy()
  }, ms)
  timer.unref()
  req.once('close', () => clearTimeout(timer))
}

function refuseExpectation(state: State, { req, res }: Http1Arrival): void {
  track(state, { req, res })
  state.unread('expectation')
  const body = refusalBody(417)
  res.sendDate = false
  res.writeHead(417, refusalFields(body).flat())
  res.end(body)
}

/** RFC 9112 section 11.2: after bytes that could not be read, nothing on this connection is taken for a request. */
function refuseUnreadable(
  { connections, unread }: State,
  { error, stream }: { error: Error & { code?: string }; stream: Duplex },
): void {
  const connection = stream instanceof Socket ? connections.get(stream) : undefined
  const reason = reasonOf(error.code)
  if (reason !== undefined) unread(reason)
  const canAnswer = error.code !== 'ECONNRESET' && stream.writable
  if (canAnswer && isNextAnswer(connection)) endWithRefusal(stream, statusOf(error.code))
  else if (connection && stream instanceof Socket) endUnanswered(stream, connection)
  else stream.destroy()
}

/** An answer that is all written may leave. Half of one must not look whole. */
function endUnanswered(socket: Socket, { open, latest }: Connection): void {
  const only = open === 1 ? latest?.res : undefined
  if (open === 0 || only?.headersSent === false) socket.destroy()
  else if (only?.writableEnded === true) socket.destroySoon()
  else resetConnection(socket)
}

/** Undefined for an agent that only went away. */
function reasonOf(code = ''): UnreadReason | undefined {
  if (code === 'HPE_HEADER_OVERFLOW') return 'head-too-large'
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return 'late'
  return code.startsWith('HPE_') && code !== 'HPE_INVALID_EOF_STATE' ? 'malformed' : undefined
}

/** Bytes of ours in the middle of another answer, or in its place, would be taken for it. */
function isNextAnswer(connection: Connection | undefined): boolean {
  if (!connection || connection.open === 0) return true
  const { open, latest } = connection
  return open === 1 && latest !== undefined && !latest.req.complete && !latest.res.headersSent
}

function statusOf(code: string | undefined): number {
  if (code === 'HPE_HEADER_OVERFLOW') return 431
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'ERR_UNKNOWN'
}
