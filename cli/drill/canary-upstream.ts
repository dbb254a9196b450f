import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { WebSocketServer } from 'ws'
import { listenOn } from '../../proxy/listen-on.ts'
import type { FlowKind } from './flows.ts'

/**
 * Serves the five flows of a drill as the upstream behind its targets, at the paths of the drill, whatever stands before
 * them. Whoever calls is answered: it has nothing to give.
 */
export async function serveCanary(
  address: string,
  paths: Readonly<Record<FlowKind, string>>,
): Promise<AsyncDisposable> {
  const server = createServer((req, res) => {
    const path = (req.url ?? '').split('?', 1)[0] ?? ''
    if (path.endsWith(paths.sse)) return stream(res)
    if (path.endsWith(paths.download)) return download(res)
    if (path.endsWith(paths.upload)) return void req.resume().on('end', () => res.end())
    answer(req, res)
  })
  const sockets = new WebSocketServer({ server, maxPayload: maxMessageBytes })
  // It hands on what the server says, which listenOn() reports.
  sockets.on('error', () => undefined)
  sockets.on('connection', (socket) => {
    const timer = setInterval(() => socket.send('tick'), tickMs)
    socket.on('close', () => clearInterval(timer))
    socket.on('error', () => clearInterval(timer))
  })
  await listenOn(server, address)
  return {
    async [Symbol.asyncDispose]() {
      for (const client of sockets.clients) client.terminate()
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

const tickMs = 20
const maxMessageBytes = 65_536
const piece = Buffer.alloc(65_536, 'd')

function stream(res: ServerResponse): void {
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  const timer = setInterval(() => res.write('data: tick\n\n'), tickMs)
  res.on('close', () => clearInterval(timer))
}

function download(res: ServerResponse): void {
  res.writeHead(200, { 'content-type': 'application/octet-stream' })
  const pump = (): void => {
    while (!res.destroyed && res.write(piece));
  }
  res.on('drain', pump)
  pump()
}

function answer(req: IncomingMessage, res: ServerResponse): void {
  req.resume()
  res.writeHead(200, { 'content-type': 'application/json' }).end('{"canary":true}\n')
}
