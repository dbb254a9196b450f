/** http-proxy as its manual sets it up. Arguments: the port to listen on, the host and port of the upstream. */
import { Agent, createServer, ServerResponse, type IncomingMessage } from 'node:http'
import { createRequire } from 'node:module'
import type { Duplex } from 'node:stream'

/** What is used of the library, which has no types of its own. */
interface HttpProxy {
  createProxyServer(options: { readonly target: string; readonly agent: Agent }): {
    web(req: IncomingMessage, res: ServerResponse): void
    ws(req: IncomingMessage, socket: Duplex, head: Buffer): void
    on(
      event: 'error',
      listener: (error: Error, req: IncomingMessage, res: ServerResponse | Duplex) => void,
    ): void
  }
}

const library: HttpProxy = createRequire(import.meta.url)('http-proxy')
const [, , port, upstream] = process.argv
const proxy = library.createProxyServer({
  target: `http://${upstream}`,
  agent: new Agent({ keepAlive: true }),
})
proxy.on('error', (_error, _req, res) => {
  if (res instanceof ServerResponse && !res.headersSent) res.writeHead(502).end()
  else res.destroy()
})
const server = createServer((req, res) => proxy.web(req, res))
server.on('upgrade', (req, socket, head) => proxy.ws(req, socket, head))
server.listen(Number(port), '127.0.0.1')
