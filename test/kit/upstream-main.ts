/**
 * An upstream in a process of its own: REST, SSE, download, upload, WebSocket, an OpenAI-like and a GitHub-like API, and
 * an official MCP server. Tells its parent what it sees, so that a test can assert the upstream's side of a cut.
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { gzipSync } from 'node:zlib'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { WebSocketServer } from 'ws'
import { z } from 'zod'

const tickMs = 20

function tell(event: object): void {
  if (process.connected) process.send?.(event)
}

const server = createServer((req, res) => {
  const url = req.url ?? ''
  tell({ type: 'request', method: req.method, url, rawHeaders: req.rawHeaders })
  let received = 0
  req.on('data', (chunk: Buffer) => {
    received += chunk.length
  })
  res.on('close', () => {
    const complete = res.writableFinished && req.complete
    tell({ type: 'closed', method: req.method, url, received, complete })
  })
  const path = url.split('?')[0] ?? ''
  const answer = answers.get(path) ?? answers.get(`${req.method} ${path}`) ?? echo
  answer(req, res)
})

type Answer = (req: IncomingMessage, res: ServerResponse) => void

function json(res: ServerResponse, body: unknown, status = 200): void {
  res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

const echo: Answer = (req, res) => {
  const chunks: Buffer[] = []
  req.on('data', (chunk: Buffer) => chunks.push(chunk))
  req.on('end', () =>
    json(res, {
      method: req.method,
      url: req.url,
      rawHeaders: req.rawHeaders,
      body: Buffer.concat(chunks).toString('utf8'),
    }),
  )
}

function every(res: ServerResponse, write: (n: number) => void): void {
  let n = 0
  const timer = setInterval(() => write(++n), tickMs)
  res.on('close', () => clearInterval(timer))
}

const sse: Answer = (req, res) => {
  req.resume()
  res.writeHead(200, { 'content-type': 'text/event-stream' })
  every(res, (n) => res.write(`data: ${n}\n\n`))
}

const chunk64 = Buffer.alloc(65_536, 'd')

const download: Answer = (_req, res) => {
  res.writeHead(200, { 'content-type': 'application/octet-stream' })
  const pump = (): void => {
    while (!res.destroyed && res.write(chunk64));
  }
  res.on('drain', pump)
  pump()
}

const sized: Answer = (_req, res) => {
  const length = 10 * 1024 * 1024
  res.writeHead(200, { 'content-length': String(length) })
  let left = length
  const pump = (): void => {
    while (left > 0) {
      left -= chunk64.length
      if (!res.write(chunk64)) return
    }
    res.end()
  }
  res.on('drain', pump)
  pump()
}

const upload: Answer = (req, res) => {
  let received = 0
  req.on('data', (chunk: Buffer) => {
    received += chunk.length
    tell({ type: 'uploading', received })
  })
  req.on('end', () => json(res, { received }))
}

const digest: Answer = (req, res) => {
  const hash = createHash('sha256')
  let received = 0
  req.on('data', (chunk: Buffer) => {
    received += chunk.length
    hash.update(chunk)
  })
  req.on('end', () => json(res, { received, sha256: hash.digest('hex') }))
}

/** Promises 1000 bytes, sends 10 and dies. */
const broken: Answer = (req, res) => {
  req.resume()
  res.writeHead(200, { 'content-length': '1000' })
  res.write('0123456789', () => setTimeout(() => res.destroy(), tickMs))
}

const brokenChunked: Answer = (req, res) => {
  req.resume()
  res.writeHead(200)
  res.write('0123456789', () => setTimeout(() => res.destroy(), tickMs))
}

const gzip: Answer = (req, res) => {
  req.resume()
  const body = gzipSync('compressed by the upstream')
  res
    .writeHead(200, { 'content-encoding': 'gzip', 'content-length': String(body.length) })
    .end(body)
}

const completions: Answer = (req, res) => {
  req.resume()
  res.writeHead(200, { 'content-type': 'text/event-stream' })
  every(res, (n) => {
    const delta = { role: 'assistant', content: `word${n} ` }
    const body = {
      id: 'c1',
      object: 'chat.completion.chunk',
      created: 1,
      model: 'm',
      choices: [{ index: 0, delta, finish_reason: null }],
    }
    res.write(`data: ${JSON.stringify(body)}\n\n`)
  })
}

const issues: Answer = (_req, res) => json(res, [{ number: 1, title: 'first', state: 'open' }])
const silent: Answer = (req) => void req.resume()
const unauthorized: Answer = (req, res) => {
  req.resume()
  res.writeHead(401, { 'www-authenticate': 'Bearer realm="upstream"' }).end('{"error":"bad key"}')
}
const redirect: Answer = (req, res) => {
  req.resume()
  res.writeHead(302, { location: 'http://169.254.169.254/latest/' }).end()
}

const mcp: Answer = (req, res) => {
  const chunks: Buffer[] = []
  req.on('data', (chunk: Buffer) => chunks.push(chunk))
  req.on('end', () => {
    const text = Buffer.concat(chunks).toString('utf8')
    const message: unknown = text === '' ? undefined : JSON.parse(text)
    void serveMcp(req, { res, message })
  })
}

/** Stateless: a server per request, as the 2025-11-25 transport allows. */
async function serveMcp(
  req: IncomingMessage,
  { res, message }: { readonly res: ServerResponse; readonly message: unknown },
): Promise<void> {
  const tools = new McpServer({ name: 'orders', version: '1.0.0' })
  tools.registerTool('lookup', { inputSchema: { order: z.string() } }, ({ order }) => {
    tell({ type: 'lookup', order })
    return { content: [{ type: 'text', text: `order ${order}: shipped` }] }
  })
  tools.registerTool(
    'refund',
    { inputSchema: { order: z.string(), amount: z.number() } },
    ({ order, amount }) => {
      tell({ type: 'refund', order, amount })
      return { content: [{ type: 'text', text: `refunded ${amount} for ${order}` }] }
    },
  )
  tools.registerTool('wait', { inputSchema: {} }, async (_args, extra) => {
    tell({ type: 'waiting' })
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 60_000)
      extra.signal.addEventListener('abort', () => {
        clearTimeout(timer)
        resolve()
      })
    })
    return { content: [{ type: 'text', text: 'waited' }] }
  })
  const transport = new StreamableHTTPServerTransport({
    enableJsonResponse: process.argv.includes('--mcp-json'),
  })
  res.on('close', () => void transport.close())
  await tools.connect(transport)
  await transport.handleRequest(req, res, message)
}

const answers: ReadonlyMap<string, Answer> = new Map([
  ['/sse', sse],
  ['/download', download],
  ['/sized', sized],
  ['/upload', upload],
  ['/digest', digest],
  ['/broken', broken],
  ['/broken-chunked', brokenChunked],
  ['/gzip', gzip],
  ['/silent', silent],
  ['/unauthorized', unauthorized],
  ['/redirect', redirect],
  ['/mcp', mcp],
  ['POST /v1/chat/completions', completions],
  ['GET /repos/acme/shop/issues', issues],
])

const sockets = new WebSocketServer({ server, path: '/ws' })
sockets.on('connection', (socket, req) => {
  tell({ type: 'ws-open', rawHeaders: req.rawHeaders })
  const timer = setInterval(() => socket.send('tick'), tickMs)
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  socket.on('error', () => undefined)
  socket.on('close', (code) => {
    clearInterval(timer)
    tell({ type: 'ws-closed', code })
  })
})

server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object')
    tell({ type: 'listening', port: address.port })
})
process.on('disconnect', () => process.exit(0))
