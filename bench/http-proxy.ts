/**
 * http-proxy, the library that most Node proxies are made of, with the keep-alive agent that it lacks by default.
 * Argument: the port of the upstream.
 */
import { Agent, createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createRequire } from 'node:module'

/** What is used of the library, which has no types of its own. */
interface HttpProxy {
  createProxyServer(options: { readonly target: string; readonly agent: Agent }): {
    web(req: IncomingMessage, res: ServerResponse, onError: () => void): void
  }
}

const library: HttpProxy = createRequire(import.meta.url)('http-proxy')
const proxy = library.createProxyServer({
  target: `http://127.0.0.1:${process.argv[2]}`,
  agent: new Agent({ keepAlive: true, maxSockets: 1024 }),
})

const server = createServer((req, res) => proxy.web(req, res, () => res.writeHead(502).end()))
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') process.send?.({ port: address.port })
})
process.on('disconnect', () => process.exit(0))
