import { once } from 'node:events'
import { open, type FileHandle } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { mutated } from '../kit/mutated.ts'
import { readRequest, valuesOf, type StrictRequest } from '../kit/strict-http.ts'
import { everything, startWorld, type World } from '../kit/world.ts'

/** A longer run: FUZZ_RUNS=50000 FUZZ_SEED=7 npx vitest run test/conformance/mutations. */
const runs = {
  numRuns: Number(process.env['FUZZ_RUNS'] ?? 1_500),
  seed: Number(process.env['FUZZ_SEED'] ?? 20_261_125),
}

describe('mutated request bytes', () => {
  let upstream: StrictUpstream
  let world: World
  let log: FileHandle
  beforeAll(async () => {
    upstream = await startStrictUpstream()
    world = await startWorld({
      settings: {
        upstreams: `upstreams: [{ name: api, url: "${upstream.url}", allowPrivateAddresses: true, credential: { mint: { audience: "https://api.example.org" } } }]`,
        routes: 'routes: [{ prefix: /api, upstream: api }]',
      },
    })
    await world.approve('T-1', { authorization_details: everything(upstream.url) })
    log = await open(join(world.sidecar.directory, 'audit.ndjson'))
  }, 60_000)
  afterAll(async () => {
    await log.close()
    await world[Symbol.asyncDispose]()
    await upstream[Symbol.asyncDispose]()
  })

  test('whatever arrives at the upstream reads as exactly the requests that were decided', async () => {
    const tally = { passed: 0, refused: 0, unread: 0, bodies: 0 }
    let position = (await records(log, 0)).position
    const property = fc.asyncProperty(mutants, async (mutant) => {
      upstream.forget()
      await send(world.sidecar.agentUrl, mutant.bytes(world.headers('T-1')))
      const exchanges = await settled(log, position)
      position = exchanges.position
      expect(upstream.faults).toEqual([])
      const { decided } = exchanges
      // A request without an answer may have been given up on its way, half written.
      const whole = decided.filter(({ end }) => end === 'complete')
      const asked = upstream.requests.map((request) => nameOf(request))
      expect(decided.map(({ name }) => name)).toEqual(expect.arrayContaining(asked))
      expect(asked).toEqual(expect.arrayContaining(whole.map(({ name }) => name)))
      expect(asked.length).toBeLessThanOrEqual(decided.length)
      expect(asked.length).toBeGreaterThanOrEqual(whole.length)
      for (const request of upstream.requests) expectOurs(request, { upstream, world })
      expect(sum(whole.map(({ bytesUp }) => bytesUp))).toBe(
        sum(upstream.requests.slice(0, whole.length).map(({ body }) => body.length)),
      )
      tally.passed += whole.length
      tally.bodies += upstream.requests.filter(({ body }) => body !== '').length
      tally.refused += exchanges.refused
      tally.unread += Number(decided.length + exchanges.refused === 0)
    })
    await fc.assert(property, runs)

    process.stdout.write(`${runs.numRuns} mutants, seed ${runs.seed}: ${JSON.stringify(tally)}\n`)
    // Each side was met often enough to say something.
    expect(tally.passed).toBeGreaterThan(runs.numRuns / 10)
    expect(tally.bodies).toBeGreaterThan(runs.numRuns / 40)
    expect(tally.refused).toBeGreaterThan(runs.numRuns / 20)
    expect(tally.unread).toBeGreaterThan(runs.numRuns / 20)
  }, 1_800_000)
})

// What is sent.

interface Mutant {
  bytes(own: Readonly<Record<string, string>>): string
}

/** Each asks to be the last on its connection, so that its end is seen. */
const last = 'Host: 127.0.0.1\r\nConnection: close\r\n'
const bases: readonly ((own: string) => string)[] = [
  (own) => `GET /api/a?q=1 HTTP/1.1\r\n${last}${own}X-A: 1\r\n\r\n`,
  (own) => `POST /api/b HTTP/1.1\r\n${last}${own}Content-Length: 5\r\n\r\nhello`,
  (own) =>
    `POST /api/c HTTP/1.1\r\n${last}${own}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=1\r\nyou\r\n0\r\n\r\n`,
  (own) =>
    `GET /api/d HTTP/1.1\r\nHost: 127.0.0.1\r\n${own}\r\nPUT /api/e HTTP/1.1\r\n${last}${own}Content-Length: 3\r\n\r\nabc`,
  (own) =>
    `DELETE /api/f HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close, X-B\r\nX-B: 2\r\n${own}\r\n`,
]

const smuggled = 'GET /api/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
const words = [
  '\r\n',
  '\n',
  '\r',
  '\0',
  ' ',
  '\t',
  ':',
  ',',
  ';',
  '\x0b',
  '\x7f',
  '\xff',
  '%0d%0a',
  '0',
  '+',

  '\r\n\r\n',
  '\n\n',
  '\r\n ',
  'HTTP/1.0',
  'HTTP/1.1',
  'HTTP/2.0',
  'Host: other\r\n',
  'http://a/',

  'Content-Length: 0\r\n',
  'Content-Length: 5\r\n',
  'Content-Length: +5\r\n',
  'content-length:5 \r\n',
  'Content_Length: 50\r\n',
  'Content-Length: 5, 5\r\n',
  'Content-Length : 4\r\n',

  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: identity\r\n',
  'Transfer_Encoding: chunked\r\n',
  'Transfer-Encoding:\tchunked\r\n',
  'Transfer-Encoding: xchunked\r\n',
  'TE: trailers\r\n',
  'Transfer-Encoding: chunked, chunked\r\n',
  'Transfer-Encoding:\r\n chunked\r\n',
  'Connection: content-length\r\n',
  'Connection: close\r\n',
  'Connection: authorization\r\n',
  'Expect: 100-continue\r\n',
  'Upgrade: h2c\r\n',
  'Trailer: X-T\r\n',
  'X-T: 1\r\n',

  '0\r\n\r\n',
  '5\r\n',
  '05\r\nhello\r\n',
  '5\nhello\n',
  '-1\r\n',
  'fffffffffffffffff\r\n',
  '5;\n',

  smuggled,
  `0\r\n\r\n${smuggled}`,
  `\r\n\r\n${smuggled}`,
  '/..',
  '/./',
  '//',
  '#',
  '?',
  '\\',
  '%2f',
]

/** The tokens stay whole, or nearly every mutant would end at the signature: edits see a place-holder of one byte. */
const ownMark = '\x01'
const mutants: fc.Arbitrary<Mutant> = mutated(bases, {
  words,
  text: (base) => base(ownMark),
}).map(({ text }) => {
  const bytes: Mutant['bytes'] = (own) =>
    text.replaceAll(ownMark, () =>
      Object.entries(own)
        .map(([name, value]) => `${name}: ${value}\r\n`)
        .join(''),
    )
  return { bytes, toString: () => JSON.stringify(text) }
})

/** Sends everything and waits for the proxy to end the connection, or to say nothing more. */
async function send(agentUrl: string, bytes: string): Promise<void> {
  const { port } = new URL(agentUrl)
  const socket = connect({ port: Number(port), host: '127.0.0.1' })
  socket.on('error', () => undefined)
  // Not `once()` of the library: that takes a reset for a failure of the test.
  const closed = new Promise((resolve) => socket.once('close', resolve))
  // What waits for more of its body is over when the connection is.
  socket.setTimeout(quietMs, () => socket.destroy())
  socket.resume()
  socket.write(bytes, 'latin1')
  await closed
}

const quietMs = 150

// What arrived.

interface StrictUpstream extends AsyncDisposable {
  readonly url: string
  readonly host: string
  readonly requests: readonly StrictRequest[]
  readonly faults: readonly string[]
  forget(): void
}

async function startStrictUpstream(): Promise<StrictUpstream> {
  let requests: StrictRequest[] = []
  let faults: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    let text = ''
    socket.on('error', () => undefined)
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      try {
        for (let read = readRequest(text); read; read = readRequest(text)) {
          requests.push(read.request)
          text = read.rest
          socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
        }
      } catch (error) {
        faults.push(String(error))
        socket.destroy()
      }
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('Expected a TCP address')
  const host = `127.0.0.1:${address.port}`
  return {
    url: `http://${host}`,
    host,
    get requests() {
      return requests
    },
    get faults() {
      return faults
    },
    forget() {
      requests = []
      faults = []
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Nothing of the agent's authority, and ours once. */
function expectOurs(
  { fields }: StrictRequest,
  { upstream, world }: { readonly upstream: StrictUpstream; readonly world: World },
): void {
  expect(valuesOf(fields, 'host')).toEqual([upstream.host])
  const [credential, ...others] = valuesOf(fields, 'authorization')
  expect(others).toEqual([])
  expect(credential).toMatch(/^Bearer ey/)
  expect(credential).not.toContain(world.svid)
  for (const name of ['task-id', 'te', 'expect', 'upgrade', 'trailer']) {
    expect(valuesOf(fields, name)).toEqual([])
  }
}

function nameOf({ method, target }: StrictRequest): string {
  return `${method} ${target}`
}

// What was decided.

interface Decided {
  readonly name: string
  readonly end: string
  readonly bytesUp: number
}

/** Every decision of this mutant with its outcome; waits until each has one. */
async function settled(
  file: FileHandle,
  from: number,
): Promise<{
  readonly decided: readonly Decided[]
  readonly refused: number
  readonly position: number
}> {
  for (let attempt = 0; attempt < 2_000; attempt++) {
    const { found, position } = await records(file, from)
    const decisions = found.filter(({ type }) => type === 'decision')
    const outcomes = new Map(
      found.filter(({ type }) => type === 'outcome').map((record) => [record.decision_id, record]),
    )
    if (decisions.every(({ decision_id: id }) => outcomes.has(id))) {
      const allowed = decisions.filter(({ decision }) => decision?.effect === 'allow')
      const decided = allowed.map(({ decision_id: id, request }) => ({
        name: `${request?.method} ${request?.path}${request?.has_query ? '?q=1' : ''}`,
        end: outcomes.get(id)?.end ?? '',
        bytesUp: outcomes.get(id)?.bytes_up ?? 0,
      }))
      return { decided, refused: decisions.length - allowed.length, position }
    }
    await setTimeout(2)
  }
  throw new Error('A decision has no outcome after four seconds')
}

interface AuditLine {
  readonly type: string
  readonly decision_id?: string
  readonly decision?: { readonly effect: string }
  readonly request?: { readonly method: string; readonly path: string; readonly has_query: boolean }
  readonly end?: string
  readonly bytes_up?: number
}

async function records(
  file: FileHandle,
  from: number,
): Promise<{ readonly found: readonly AuditLine[]; readonly position: number }> {
  const { size } = await file.stat()
  const { buffer, bytesRead } = await file.read(Buffer.alloc(size - from), 0, size - from, from)
  const text = buffer.subarray(0, bytesRead).toString('utf8')
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  const found: AuditLine[] = whole
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
  return { found, position: from + Buffer.byteLength(whole) }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
