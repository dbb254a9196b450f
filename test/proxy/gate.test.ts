import { once } from 'node:events'
import { IncomingMessage } from 'node:http'
import { connect, Socket } from 'node:net'
import * as fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import type { Config } from '../../config/schema.ts'
import type { Http1Arrival } from '../../proxy/arrival.ts'
import { gate } from '../../proxy/gate.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { createListener, type Listener } from '../../proxy/listener.ts'

interface Head {
  readonly method?: string
  readonly httpVersion?: string
  readonly rawHeaders?: readonly string[]
}

/** What no socket can deliver in one piece is set by hand; all else is proven over sockets below. */
function head({ method = 'GET', httpVersion = '1.1', rawHeaders = [] }: Head): IncomingMessage {
  const req = new IncomingMessage(new Socket())
  return Object.assign(req, {
    method,
    httpVersion,
    rawHeaders: ['Host', 'localhost', ...rawHeaders],
  })
}

describe('gate()', () => {
  test.each(['0.9', '2.0', '1.2', ''])('refuses HTTP/%s', (httpVersion) => {
    expect(gate(head({ httpVersion }))?.detail).toBe('gate: not HTTP/1.1 or HTTP/1.0')
  })

  test.each(['get', '', 'GET ', 'A'.repeat(33)])('refuses the method "%s"', (method) => {
    expect(gate(head({ method }))?.detail).toBe('gate: the method is not 1 to 32 capital letters')
  })

  test.each(['TRACE', 'TRACK', 'CONNECT'])('refuses %s', (method) => {
    expect(gate(head({ method }))?.detail).toBe('gate: this method is never forwarded')
  })

  test('refuses chunks in HTTP/1.0 and chunks beside a length', () => {
    const chunked = ['Transfer-Encoding', 'chunked']
    expect(gate(head({ httpVersion: '1.0', rawHeaders: chunked }))?.detail).toBe(
      'gate: Transfer-Encoding in HTTP/1.0',
    )
    expect(gate(head({ rawHeaders: [...chunked, 'Content-Length', '1'] }))?.detail).toBe(
      'gate: both Content-Length and Transfer-Encoding',
    )
  })

  test.each(['', '00', '01', '+1', '-1', '1 ', '0x1', '1,1', '1e3', '9'.repeat(16)])(
    'refuses the length "%s"',
    (value) => {
      expect(gate(head({ rawHeaders: ['Content-Length', value] }))?.detail).toBe(
        'gate: Content-Length is not a canonical decimal',
      )
    },
  )

  test('takes a WebSocket handshake', () => {
    const rawHeaders = ['Connection', 'keep-alive, Upgrade', 'Upgrade', 'WebSocket']
    expect(gate(head({ rawHeaders }))).toBeUndefined()
  })

  test('takes a Transfer-Encoding only when it is "chunked", and never quotes a value', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 3 }), (value) => {
        const denial = gate(head({ rawHeaders: ['transfer-encoding', value] }))
        expect(denial === undefined).toBe(value === 'chunked')
        const fixed =
          /^gate: (?:Transfer-Encoding is not exactly "chunked"|a control byte in a field)$/
        expect(denial?.detail).toMatch(fixed)
      }),
    )
  })
})

const limits: Config['limits'] = {
  maxHeadBytes: 4096,
  headTimeout: 1_000,
  bodyGapTimeout: 1_000,
  answerGapTimeout: 1_000,
  maxConnections: 16,
  maxExchanges: 16,
  maxMcpBytes: 1024,
  maxMcpDepth: 16,
}

const listeners: Listener[] = []
afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener[Symbol.asyncDispose]()
})

/** A listener that answers 200 to what the gate lets through, and 400 with the gate's words to the rest. */
async function start(): Promise<{ readonly port: number; readonly seen: readonly string[] }> {
  const seen: string[] = []
  const listener = createListener({
    limits,
    clock: systemClock,
    log: { info: () => undefined, warn: () => undefined, error: () => {} },
    handle: async (arrival) => {
      const { req, res } = arrival as Http1Arrival
      seen.push(req.url ?? '')
      const denial = gate(req)
      if (denial) res.writeHead(400, { connection: 'close' }).end(denial.detail)
      else res.writeHead(200).end(`ok ${req.url}`)
      req.resume()
    },
  })
  listeners.push(listener)
  return { port: Number(new URL(await listener.listen('127.0.0.1:0')).port), seen }
}

/** Sends the text and gives everything that came back until the end. */
async function exchange(port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let answered = ''
  socket.on('error', () => {})
  socket.on('data', (chunk) => (answered += chunk.toString('latin1')))
  socket.write(text, 'latin1')
  await once(socket, 'close')
  return answered
}

function request(...lines: readonly string[]): string {
  return `${lines.join('\r\n')}\r\n\r\n`
}

const host = 'Host: localhost'
const close = 'Connection: close'

describe('gate() behind createListener()', () => {
  test.each([
    ['a plain GET', request('GET /x HTTP/1.1', host, close)],
    ['HTTP/1.0', request('GET /x HTTP/1.0', host)],
    ['a length', `${request('POST /x HTTP/1.1', host, close, 'Content-Length: 2')}ab`],
    [
      'chunks',
      `${request('POST /x HTTP/1.1', host, close, 'Transfer-Encoding: chunked')}0\r\n\r\n`,
    ],
    [
      'an expectation of 100',
      `${request('POST /x HTTP/1.1', host, close, 'Expect: 100-continue', 'Content-Length: 1')}a`,
    ],
    [
      'a listed own field',
      request('GET /x HTTP/1.1', host, 'Connection: close, x-hop', 'X-Hop: 1'),
    ],
    [
      '100 fields',
      request('GET /x HTTP/1.1', host, close, ...Array.from({ length: 98 }, () => 'A: 1')),
    ],
  ])('lets %s through', async (_, text) => {
    const { port } = await start()
    expect(await exchange(port, text)).toContain('ok /x')
  })

  test.each([
    [
      'two Hosts',
      request('GET /x HTTP/1.1', host, 'Host: evil.example'),
      'host stands more than once',
    ],
    ['no Host', request('GET /x HTTP/1.1'), 'no Host'],
    ['an empty Host', request('GET /x HTTP/1.1', 'Host:'), 'Host is not'],
    ['userinfo in Host', request('GET /x HTTP/1.1', 'Host: u@localhost'), 'Host is not'],
    ['a path in Host', request('GET /x HTTP/1.1', 'Host: localhost/x'), 'Host is not'],
    ['a list in Host', request('GET /x HTTP/1.1', 'Host: localhost, evil'), 'Host is not'],
    ['a port past 65535', request('GET /x HTTP/1.1', 'Host: localhost:65536'), 'Host is not'],
    [
      'a leading zero',
      `${request('POST /x HTTP/1.1', host, 'Content-Length: 05')}abcde`,
      'canonical',
    ],
    [
      'TE identity, chunked',
      `${request('POST /x HTTP/1.1', host, 'Transfer-Encoding: identity, chunked')}0\r\n\r\n`,
      'not exactly',
    ],
    [
      'TE ,chunked',
      `${request('POST /x HTTP/1.1', host, 'Transfer-Encoding: ,chunked')}0\r\n\r\n`,
      'not exactly',
    ],
    [
      'TE on two lines',
      `${request('POST /x HTTP/1.1', host, 'Transfer-Encoding: x', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
      'transfer-encoding stands more than once',
    ],
    [
      'an underscore',
      request('GET /x HTTP/1.1', host, 'Transfer_Encoding: chunked'),
      'field name with "_"',
    ],
    [
      'two Content-Types',
      request('GET /x HTTP/1.1', host, 'Content-Type: a/b', 'Content-Type: c/d'),
      'content-type stands more',
    ],
    [
      'Connection: content-length',
      `${request('POST /x HTTP/1.1', host, 'Content-Length: 1', 'Connection: content-length')}a`,
      'Connection lists',
    ],
    [
      'Connection: Authorization',
      request('GET /x HTTP/1.1', host, 'Connection: Authorization'),
      'Connection lists',
    ],
    [
      'Connection: Task-Grant',
      request('GET /x HTTP/1.1', host, 'Connection: close, Task-Grant'),
      'Connection lists',
    ],
    ['TRACE', request('TRACE /x HTTP/1.1', host), 'never forwarded'],
    ['M-SEARCH', request('M-SEARCH /x HTTP/1.1', host), 'capital letters'],
    [
      'Upgrade: h2c',
      request('GET /x HTTP/1.1', host, 'Connection: Upgrade', 'Upgrade: h2c'),
      'another protocol',
    ],
    [
      'an unlisted Upgrade',
      request('GET /x HTTP/1.1', host, 'Upgrade: websocket'),
      'Upgrade without',
    ],
    [
      'a POST upgrade',
      request('POST /x HTTP/1.1', host, 'Connection: Upgrade', 'Upgrade: websocket'),
      'Upgrade without',
    ],
    [
      'an upgrade with a body',
      `${request('GET /x HTTP/1.1', host, 'Connection: Upgrade', 'Upgrade: websocket', 'Content-Length: 1')}a`,
      'with a body',
    ],
    [
      '101 fields',
      request('GET /x HTTP/1.1', host, ...Array.from({ length: 100 }, () => 'A: 1')),
      'more than 100',
    ],
  ])('refuses %s', async (_, text, detail) => {
    const { port, seen } = await start()
    const answered = await exchange(port, text)
    expect(answered).toMatch(/^HTTP\/1\.1 400 /)
    expect(answered).toContain(detail)
    expect(seen).toEqual(['/x'])
  })

  test.each([
    [
      'CL and TE',
      `${request('POST /x HTTP/1.1', host, 'Content-Length: 4', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
    ],
    [
      'TE: xchunked',
      `${request('POST /x HTTP/1.1', host, 'Transfer-Encoding: xchunked')}0\r\n\r\n`,
    ],
    [
      'two lengths',
      `${request('POST /x HTTP/1.1', host, 'Content-Length: 1', 'Content-Length: 2')}ab`,
    ],
    ['a signed length', `${request('POST /x HTTP/1.1', host, 'Content-Length: +1')}a`],
    ['an obs-fold', request('GET /x HTTP/1.1', host, 'X-A: 1', ' folded: 2')],
    ['a space before the colon', request('GET /x HTTP/1.1', 'Host : localhost')],
    ['a bare LF', `GET /x HTTP/1.1\n${host}\n\n`],
    ['a NUL in a value', request('GET /x HTTP/1.1', host, 'X-A: \0')],
    ['HTTP/2.0', request('GET /x HTTP/2.0', host)],
    ['no version', 'GET /x\r\n\r\n'],
    [
      'HTTP/1.0 with chunks',
      `${request('POST /x HTTP/1.0', host, 'Transfer-Encoding: chunked')}0\r\n\r\n`,
    ],
    ['garbage', '\x16\x03\x01 secret-bytes\r\n\r\n'],
  ])('never takes %s, nor what follows it, for a request', async (_, text) => {
    const { port, seen } = await start()
    const answered = await exchange(port, text + request('GET /smuggled HTTP/1.1', host, close))
    expect(answered).toMatch(/^HTTP\/1\.1 400 /)
    expect(answered).not.toContain('ok ')
    expect(answered).not.toContain('secret-bytes')
    expect(seen).not.toContain('/smuggled')
  })
})
