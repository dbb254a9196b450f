import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setInterval } from 'node:timers'
import { decodeJwt } from 'jose'
import { WebSocketServer } from 'ws'

/** The small API that `chaperone dev` puts behind itself: JSON, server-sent events and a WebSocket. */
export interface DevUpstream extends AsyncDisposable {
  readonly url: string
  /** Streams that are open now. */
  readonly openStreams: number
}

const tickMs = 200
const invoices = [
  { id: 'in_1', customer: 'Nordwind', amount: 900, currency: 'EUR' },
  { id: 'in_2', customer: 'Alpenrose', amount: 120, currency: 'EUR' },
]

/** Listens on a free loopback port. */
export async function startDevUpstream(): Promise<DevUpstream> {
  const streams = new Set<ServerResponse>()
  const server = createServer((req, res) => answer(req, res, streams))
  const sockets = new WebSocketServer({ server, path: '/live' })
  sockets.on('connection', (socket) => {
    const timer = setInterval(() => socket.send(JSON.stringify({ tick: Date.now() })), tickMs)
    socket.on('close', () => clearInterval(timer))
    socket.on('error', () => clearInterval(timer))
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new TypeError('Expected a TCP address')
  return {
    url: `http://127.0.0.1:${address.port}`,
    get openStreams() {
      return streams.size + sockets.clients.size
    },
    async [Symbol.asyncDispose]() {
      for (const client of sockets.clients) client.terminate()
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

function answer(req: IncomingMessage, res: ServerResponse, streams: Set<ServerResponse>): void {
  const path = req.url ?? ''
  if (req.method === 'GET' && path === '/events') return stream(res, streams)
  req.resume()
  if (req.method === 'GET' && path === '/invoices')
    return json(res, { invoices, caller: caller(req) })
  if (req.method === 'POST' && path === '/refunds')
    return json(res, { refunded: true, caller: caller(req) })
  if (req.method === 'GET' && path === '/admin/users')
    return json(res, { users: ['root'], caller: caller(req) })
  res.writeHead(404, { 'content-type': 'application/json' }).end('{"message":"no such thing"}')
}

function json(res: ServerResponse, body: unknown): void {
  res
    .writeHead(200, { 'content-type': 'application/json' })
    .end(`${JSON.stringify(body, null, 2)}\n`)
}

/** What the upstream learns of its caller: the minted credential's claims, and nothing of the agent's own identity token. */
function caller(req: IncomingMessage): Record<string, unknown> {
  const token = req.headers.authorization?.replace(/^Bearer /, '')
  if (token === undefined) return { credential: 'none' }
  const { iss, sub, aud, txn, exp = 0 } = decodeJwt(token)
  return { iss, sub, aud, txn, expires_in_s: exp - Math.floor(Date.now() / 1000) }
}

function stream(res: ServerResponse, streams: Set<ServerResponse>): void {
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  streams.add(res)
  let n = 0
  const timer = setInterval(() => res.write(`data: {"tick":${++n}}\n\n`), tickMs)
  res.on('close', () => {
    clearInterval(timer)
    streams.delete(res)
  })
}
