import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, Agent as ClearAgent, request as requestClear } from 'node:http'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { Agent as TlsAgent, request as requestTls } from 'node:https'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../kit/relay.ts'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { localhostCertFile, localhostKeyFile } from '../kit/tls.ts'
import { everything, startWorld, type World } from '../kit/world.ts'

const half = Buffer.alloc(24 * 1024, 'a')
const wholeBytes = 2 * half.length
const ca = readFileSync(localhostCertFile)
const clients = 16

/** What became of one request, as its client saw it. */
type Seen = 'whole' | 'refused' | 'nothing' | 'part'

interface Slow extends AsyncDisposable {
  readonly url: string
  /** Requests that reached it. */
  readonly begun: () => number
}

/** An upstream that takes its time over both halves of its answer. */
async function startSlow(): Promise<Slow> {
  let begun = 0
  const server = createServer((req, res) => {
    begun += 1
    req.resume()
    const answer = async (): Promise<void> => {
      await delay(Math.random() * 10)
      res.writeHead(200, { 'content-type': 'text/plain' })
      res.write(half)
      await delay(Math.random() * 10)
      res.end(half)
    }
    void answer()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new TypeError('Expected a TCP address')
  return {
    url: `http://127.0.0.1:${address.port}`,
    begun: () => begun,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

type Ask = (path: string) => Promise<Seen>

/** One connection at a time, kept while the other side keeps it. */
function http1Client(sidecar: SidecarProcess, headers: Record<string, string>): Ask {
  const isTls = sidecar.agentUrl.startsWith('https:')
  const agent = isTls
    ? new TlsAgent({ keepAlive: true, maxSockets: 1, ca })
    : new ClearAgent({ keepAlive: true, maxSockets: 1 })
  const send = isTls ? requestTls : requestClear
  return (path) =>
    new Promise((resolve) => {
      const req = send(`${sidecar.agentUrl}${path}`, { agent, headers }, (res) => {
        let bytes = 0
        res.on('data', (chunk: Buffer) => (bytes += chunk.length))
        res.on('error', () => resolve('part'))
        res.on('end', () => resolve(seenOf(res.statusCode, { isWhole: res.complete, bytes })))
      })
      req.on('error', () => resolve('nothing'))
      req.end()
    })
}

/** One connection, and another once that has ended. */
function http2Client(sidecar: SidecarProcess, headers: Record<string, string>): Ask {
  let session: ClientHttp2Session | undefined
  const open = (): ClientHttp2Session => {
    const next = connectHttp2(sidecar.agentUrl, { ca })
    next.on('error', () => undefined)
    return next
  }
  return (path) =>
    new Promise((resolve) => {
      if (!session || session.closed || session.destroyed) session = open()
      const stream = session.request({ ':path': path, ...headers })
      let bytes = 0
      let status: number | undefined
      let isEnded = false
      stream.on('response', (fields) => (status = fields[':status']))
      stream.on('data', (chunk: Buffer) => (bytes += chunk.length))
      stream.on('end', () => (isEnded = true))
      stream.on('error', () => undefined)
      stream.on('close', () => {
        const isWhole = isEnded && stream.rstCode === 0
        resolve(status === undefined ? 'nothing' : seenOf(status, { isWhole, bytes }))
      })
    })
}

function seenOf(
  status: number | undefined,
  { isWhole, bytes }: { readonly isWhole: boolean; readonly bytes: number },
): Seen {
  if (!isWhole) return 'part'
  if (status !== 200) return 'refused'
  return bytes === wholeBytes ? 'whole' : 'part'
}

const tls = 'tls: { certFile: cert.pem, keyFile: key.pem }'
let slow: Slow
let world: World
beforeAll(async () => {
  slow = await startSlow()
  world = await startWorld({
    settings: {
      upstreams: `upstreams: [{ name: api, url: "${slow.url}", allowPrivateAddresses: true, credential: { none: true } }]`,
      routes: 'routes: [{ prefix: /api, upstream: api }]',
    },
    files: { 'cert.pem': ca.toString(), 'key.pem': readFileSync(localhostKeyFile, 'utf8') },
  })
  await world.approve('T-1', { authorization_details: everything(slow.url) })
}, 60_000)
afterAll(async () => {
  await world[Symbol.asyncDispose]()
  await slow[Symbol.asyncDispose]()
})

describe('rule 43: SIGTERM under load loses no answer', () => {
  test.each([
    ['HTTP/1.1', http1Client, ''],
    ['HTTP/2', http2Client, ''],
    ['HTTP/1.1 over TLS', http1Client, tls],
    ['HTTP/2 over TLS', http2Client, tls],
  ])(
    'what was forwarded is answered whole, over %s',
    async (_, client, listen) => {
      await using sidecar = await world.another({
        listen,
        settings: { shutdown: 'shutdown: { drain: 4s }' },
      })
      const tally = { whole: 0, refused: 0, nothing: 0, part: 0 }
      const begunBefore = slow.begun()
      const stop = new AbortController()
      const loops = Array.from({ length: clients }, async () => {
        const ask = client(sidecar, world.headers('T-1'))
        while (!stop.signal.aborted) {
          const seen = await ask('/api/things')
          tally[seen] += 1
          if (seen === 'nothing') await delay(5)
        }
      })
      await until(() => tally.whole > 20 * clients)
      sidecar.kill('SIGTERM')
      expect(await sidecar.exited).toBe(0)
      stop.abort()
      await Promise.all(loops)
      expect(tally).toMatchObject({ part: 0, refused: 0 })
      expect(tally.whole).toBe(slow.begun() - begunBefore)
      const records = await sidecar.audit()
      const ends = records.filter(({ type }) => type === 'outcome').map(({ end }) => end)
      expect(new Set(ends)).toEqual(new Set(['complete']))
      expect(ends).toHaveLength(tally.whole)
      expect(records.at(-1)).toMatchObject({ type: 'stop', detail: { cut: 0 } })
    },
    60_000,
  )
})
