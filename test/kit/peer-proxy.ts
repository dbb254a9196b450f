/** The proxies of the Node world, each as its manual sets it up, with connections to the upstream kept open. */
import { Agent, createServer, ServerResponse, type IncomingMessage, type Server } from 'node:http'
import { createRequire } from 'node:module'
import type { Duplex } from 'node:stream'
import fastifyHttpProxy from '@fastify/http-proxy'
import { fastify } from 'fastify'

export const peerNames = ['http-proxy', 'http-proxy-3', 'httpxy', '@fastify/http-proxy'] as const

/** Listens on 127.0.0.1 and forwards everything to `upstream`, `host:port`. Resolves with its port. */
export async function listenAsPeer(
  name: string,
  { upstream, port }: { readonly upstream: string; readonly port: number },
): Promise<number> {
  if (name === '@fastify/http-proxy') return listenAsFastify(`http://${upstream}`, port)
  const library = (await load(name)).createProxyServer({
    target: `http://${upstream}`,
    agent: new Agent({ keepAlive: true, maxSockets: 1024 }),
  })
  library.on('error', (_error, _req, res) => {
    if (res instanceof ServerResponse && !res.headersSent) res.writeHead(502).end()
    else res?.destroy()
  })
  // httpxy gives a promise as well; its faults come by the event.
  const server = createServer(
    (req, res) => void Promise.resolve(library.web(req, res)).catch(ignore),
  )
  server.on('upgrade', (req, socket, head) => {
    void Promise.resolve(library.ws(req, socket, head)).catch(ignore)
  })
  server.listen(port, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return portOf(server)
}

/** The version that is installed. */
export function versionOfPeer(name: string): string {
  const { version }: { version: string } = createRequire(import.meta.url)(
    // httpxy does not export its own.
    new URL(`../../node_modules/${name}/package.json`, import.meta.url).pathname,
  )
  return version
}

/** What is used of the libraries; two of them have the interface of the first. */
interface Library {
  createProxyServer(options: { readonly target: string; readonly agent: Agent }): {
    web(req: IncomingMessage, res: ServerResponse): unknown
    ws(req: IncomingMessage, socket: Duplex, head: Buffer): unknown
    on(
      event: 'error',
      listener: (error: Error, req: unknown, res: ServerResponse | Duplex | undefined) => void,
    ): void
  }
}

async function load(name: string): Promise<Library> {
  if (name === 'httpxy') return (await import('httpxy')) as unknown as Library
  const library: Library = createRequire(import.meta.url)(name)
  return library
}

async function listenAsFastify(upstream: string, port: number): Promise<number> {
  const app = fastify()
  await app.register(fastifyHttpProxy, {
    upstream,
    websocket: true,
    undici: { connections: 1024, pipelining: 1 },
  })
  await app.listen({ port, host: '127.0.0.1' })
  return portOf(app.server)
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('Expected a TCP address')
  return address.port
}

function ignore(): void {}
