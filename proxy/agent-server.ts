import type { Server } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { Server as NetServer, type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Config, ListenTlsConfig } from '../config/schema.ts'
import { maxFields } from './gate.ts'
import { readListenTls, watchListenTls } from './listen-tls.ts'
import type { ListenerLog } from './listener.ts'
import { http } from './node-http.ts'
import { carriedBy } from './reset-connection.ts'
import type { UnreadReason } from './unread-requests.ts'

interface AgentServerOptions {
  readonly limits: Config['limits']
  /** Absent: clear text. */
  readonly tls?: ListenTlsConfig
  readonly log: ListenerLog
  /** Told of what never becomes a request. */
  readonly unread: (reason: UnreadReason) => void
  /** Whether new connections are reset unheard. */
  readonly isOverloaded: () => boolean
  /** Gets each connection, once TLS is agreed on; `takeHttp1` hands it to the server's own reader. */
  readonly admit: (socket: Socket, takeHttp1: () => void) => void
}

/** The server of the agents' port, without its listeners for requests. */
export interface AgentServer {
  readonly server: Server
  /** Destroys connections that have not agreed on TLS yet. */
  readonly abandonHandshakes: () => void
}

/** Above the 60 s that clients and load balancers keep idle connections, so that they close first. */
export const keepAliveMs = 65_000
/** `headersTimeout` is only looked at this often. */
export const checkEveryMs = 1_000
/** A handshake costs more than most requests: how many may be under way at once. */
const maxHandshakes = 256

/** Makes it. Throws `ListenTlsError` when the certificate cannot be used. */
export function createAgentServer(options: AgentServerOptions): AgentServer {
  const { limits, tls } = options
  const settings = {
    insecureHTTPParser: false,
    // The gate answers for Host, in our words.
    requireHostHeader: false,
    joinDuplicateHeaders: false,
    maxHeaderSize: limits.maxHeadBytes,
    headersTimeout: limits.headTimeout,
    // Long uploads are fine: the gap between two pieces is bounded where the body is read.
    requestTimeout: 0,
    keepAliveTimeout: keepAliveMs,
    connectionsCheckingInterval: checkEveryMs,
    noDelay: true,
  }
  const agentServer = tls
    ? secureServer(settings, { ...options, tls })
    : clearServer(settings, options)
  agentServer.server.maxHeadersCount = maxFields + 1
  agentServer.server.maxConnections = limits.maxConnections
  return agentServer
}

type Settings = Parameters<typeof createSecureServer>[0]

function clearServer(
  settings: Settings,
  { admit, isOverloaded, unread }: AgentServerOptions,
): AgentServer {
  const server = http.createServer(settings)
  const takeHttp1 = takeOver(server, 'connection')
  server.on('connection', (socket: Socket) => {
    if (!isOverloaded()) return admit(socket, () => takeHttp1(socket))
    unread('overload')
    socket.resetAndDestroy()
  })
  return { server, abandonHandshakes: () => undefined }
}

function secureServer(
  settings: Settings,
  {
    tls,
    limits,
    log,
    admit,
    isOverloaded,
    unread,
  }: AgentServerOptions & { readonly tls: ListenTlsConfig },
): AgentServer {
  const server = createSecureServer({
    ...settings,
    ...readListenTls(tls),
    // RFC 7301: with none of these in common the handshake ends.
    ALPNProtocols: ['h2', 'http/1.1'],
    handshakeTimeout: limits.headTimeout,
    requestCert: tls.clientCaFile !== undefined,
    rejectUnauthorized: true,
  })
  /** Those that have not agreed on TLS yet, by their other end. */
  const handshakes = new Map<string, Socket>()
  const shake = takeOver(server, 'connection')
  server.on('connection', (carrier: Socket) => {
    const from = otherEnd(carrier)
    if (from === undefined || handshakes.size >= maxHandshakes || isOverloaded()) {
      unread('overload')
      carrier.resetAndDestroy()
      return
    }
    handshakes.set(from, carrier)
    carrier.once('close', () => {
      if (handshakes.get(from) === carrier) handshakes.delete(from)
    })
    shake(carrier)
  })
  const takeHttp1 = takeOver(server, 'secureConnection')
  server.on('secureConnection', (socket: TLSSocket) => {
    const from = otherEnd(socket)
    const carrier = from === undefined ? undefined : handshakes.get(from)
    if (from === undefined || !carrier) {
      socket.destroy()
      return
    }
    handshakes.delete(from)
    carriedBy(socket, carrier)
    admit(socket, () => takeHttp1(socket))
  })
  // There is nobody to answer: what would be read as HTTP is not agreed on.
  takeOver(server, 'tlsClientError')
  server.on('tlsClientError', (error: Error & { code?: string }, socket) => {
    // Who only looks whether the port is open has failed at nothing.
    if (error.code?.startsWith('ERR_') === true) unread('handshake')
    socket.destroy()
  })
  const watching = watchListenTls(server, { config: tls, log })
  server.once('close', () => watching[Symbol.dispose]())
  return {
    server,
    abandonHandshakes() {
      for (const carrier of handshakes.values()) carrier.destroy()
    },
  }
}

/** Takes no more connections. The close of an HTTP server would also destroy those that it calls idle. */
export function stopAccepting(server: Server): void {
  // oxlint-disable-next-line typescript/unbound-method -- applied to a server at once
  Reflect.apply(NetServer.prototype.close, server, [])
}

/** Takes Node's own listeners off an event and returns them as one. */
function takeOver(server: Server, event: string): (socket: Socket) => void {
  const own = server.listeners(event)
  server.removeAllListeners(event)
  return (socket) => {
    for (const listener of own) Reflect.apply(listener, server, [socket])
  }
}

/** No two live connections to one port have the same. */
function otherEnd({ remoteAddress, remotePort }: Socket): string | undefined {
  if (remoteAddress === undefined || remotePort === undefined) return undefined
  return `${remoteAddress} ${remotePort}`
}
