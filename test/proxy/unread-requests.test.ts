import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { afterEach, describe, expect, test } from 'vitest'
import type { AuditEvent } from '../../audit/record.ts'
import type { ListenTlsConfig } from '../../config/schema.ts'
import { createListener, type Listener } from '../../proxy/listener.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { UnreadRequests, type UnreadReason } from '../../proxy/unread-requests.ts'
import { limits, until, watch, type Peer } from '../kit/relay.ts'
import { frame, preface } from '../kit/http2-frames.ts'
import { localhostCertFile, localhostKeyFile } from '../kit/tls.ts'

const tls = { certFile: localhostCertFile, keyFile: localhostKeyFile }
const head = 'GET /a HTTP/1.1\r\nHost: agent\r\n'
const listeners: Listener[] = []
afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener[Symbol.asyncDispose]()
})

interface Bench {
  readonly port: number
  readonly reasons: UnreadReason[]
  /** Sends the bytes and waits for the end of the connection. */
  readonly send: (bytes: string | Buffer) => Promise<Peer>
}

async function start(
  more: { readonly tls?: ListenTlsConfig; readonly isOverloaded?: () => boolean } = {},
): Promise<Bench> {
  const reasons: UnreadReason[] = []
  const listener = createListener({
    ...more,
    limits: { ...limits, headTimeout: 1_000 },
    clock: systemClock,
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
    unread: (reason) => reasons.push(reason),
    async handle({ req, res }) {
      res.writeHead(200, ['content-length', '2', 'connection', 'close'])
      res.flushHeaders()
      if (req.url !== '/slow') res.end('ok')
    },
  })
  listeners.push(listener)
  const port = Number(new URL(await listener.listen('127.0.0.1:0')).port)
  return {
    port,
    reasons,
    async send(bytes) {
      const peer = watch(connect(port, '127.0.0.1'))
      peer.socket.write(bytes)
      await peer.ended
      return peer
    },
  }
}

describe('createListener() tells why there was no request', () => {
  test.each<[UnreadReason, string, string | Buffer]>([
    ['malformed', 'no HTTP', 'SSH-2.0-x\r\n\r\n'],
    ['malformed', 'two framings', `${head}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n`],
    ['malformed', 'a bad chunk', `${head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n`],
    [
      'malformed',
      'bad HTTP/2',
      Buffer.concat([preface, frame('settings', { payload: Buffer.alloc(5) })]),
    ],
    ['head-too-large', 'a large head', `${head}X-A: ${'a'.repeat(20_000)}\r\n\r\n`],
    ['late', 'half a head', head],
    ['late', 'half a preface', 'PRI * HT'],
    ['connect', 'CONNECT', 'CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n'],
    ['expectation', 'an expectation', `${head}Expect: x\r\nConnection: close\r\n\r\n`],
  ])('%s: %s', async (reason, _, bytes) => {
    const { send, reasons } = await start()
    await send(bytes)
    await until(() => reasons.length > 0)
    expect(reasons).toEqual([reason])
  })

  test('handshake: clear text, and a version of TLS that is not taken', async () => {
    const { port, send, reasons } = await start({ tls })
    await send(`${head}\r\n`)
    const old = connectTls({
      port,
      host: '127.0.0.1',
      rejectUnauthorized: false,
      minVersion: 'TLSv1',
      maxVersion: 'TLSv1.1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    })
    await watch(old).ended
    await until(() => reasons.length > 1)
    expect(reasons).toEqual(['handshake', 'handshake'])
  })

  test('overload: a connection that is reset unheard', async () => {
    const { send, reasons } = await start({ isOverloaded: () => true })
    await send(`${head}\r\n`)
    expect(reasons).toEqual(['overload'])
  })

  test('nothing for a request that is served, an agent that goes away or one that says nothing', async () => {
    const { port, send, reasons } = await start()
    await send(`${head}\r\n`)
    const gone = connect(port, '127.0.0.1')
    await once(gone, 'connect')
    gone.write(head)
    await delay(50)
    gone.resetAndDestroy()
    const left = connect(port, '127.0.0.1')
    left.end(head)
    left.resume()
    await once(left, 'close')
    expect((await send('')).text()).toMatch(/^HTTP\/1\.1 408 /)
    expect(reasons).toEqual([])
  })

  test('bad bytes under an answer reset it: half of it must not look whole', async () => {
    const { port, reasons } = await start()
    const peer = watch(connect(port, '127.0.0.1'))
    peer.socket.write('GET /slow HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: chunked\r\n\r\n')
    await peer.has('200 OK')
    peer.socket.write('xyz\r\n')
    expect(await peer.ended).toBe('reset')
    expect(reasons).toEqual(['malformed'])
  })
})

describe('UnreadRequests', () => {
  test('records the first at once, a flood in counts, and nothing more when it is over', async () => {
    const events: AuditEvent[] = []
    const counted: UnreadReason[] = []
    await using unread = new UnreadRequests({
      metrics: { unread: (reason) => counted.push(reason) },
      record: async (event) => void events.push(event),
      everyMs: 50,
    })
    unread.note('late')
    expect(events).toEqual([{ type: 'unread', detail: { late: 1 } }])
    for (let n = 0; n < 10_000; n += 1) unread.note(n % 10 === 0 ? 'late' : 'malformed')
    expect(events).toHaveLength(1)
    expect(counted).toHaveLength(10_001)
    await until(() => events.length > 1)
    expect(events[1]).toEqual({ type: 'unread', detail: { late: 1_000, malformed: 9_000 } })
    await delay(200)
    expect(events).toHaveLength(2)
    unread.note('connect')
    expect(events[2]).toEqual({ type: 'unread', detail: { connect: 1 } })
  })

  test('records what is left when it is disposed of', async () => {
    const events: AuditEvent[] = []
    const unread = new UnreadRequests({
      metrics: { unread: () => undefined },
      record: async (event) => void events.push(event),
    })
    unread.note('late')
    unread.note('connect')
    await unread[Symbol.asyncDispose]()
    expect(events).toEqual([
      { type: 'unread', detail: { late: 1 } },
      { type: 'unread', detail: { connect: 1 } },
    ])
  })
})
