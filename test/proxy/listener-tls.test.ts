import { once } from 'node:events'
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { connect as connectHttp2 } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Config } from '../../config/schema.ts'
import type { Arrival } from '../../proxy/arrival.ts'
import { createListener, type Listener, type ListenerLog } from '../../proxy/listener.ts'
import { ListenTlsError, readListenTls } from '../../proxy/listen-tls.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { startRelay, until, watch, type Peer } from '../kit/relay.ts'
import {
  localhostCertFile,
  localhostKeyFile,
  strangerCertFile,
  strangerKeyFile,
} from '../kit/tls.ts'

const pair = { certFile: localhostCertFile, keyFile: localhostKeyFile }
const ca = readFileSync(localhostCertFile)
const get = 'GET /a HTTP/1.1\r\nHost: agent\r\n\r\n'

const limits: Config['limits'] = {
  maxHeadBytes: 4096,
  headTimeout: 1_000,
  bodyGapTimeout: 1_000,
  answerGapTimeout: 1_000,
  maxConnections: 512,
  maxExchanges: 16,
  maxMcpBytes: 1024,
  maxMcpDepth: 16,
}

interface Bench {
  readonly listener: Listener
  readonly port: number
  readonly url: string
  readonly lines: string[]
}

let directory: string
const listeners: Listener[] = []
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chaperone-tls-'))
})
afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener[Symbol.asyncDispose]()
  await rm(directory, { recursive: true })
})

/** A listener that answers with the version of HTTP that it was asked in. */
async function start(
  tls: { readonly certFile: string; readonly keyFile: string; readonly clientCaFile?: string },
  more: { readonly limits?: Partial<Config['limits']>; readonly isOverloaded?: () => boolean } = {},
): Promise<Bench> {
  const lines: string[] = []
  const say = (fields: Readonly<Record<string, unknown>>, message: string): void => {
    const { err } = fields
    lines.push(err instanceof Error ? `${message}: ${err.message}` : message)
  }
  const log: ListenerLog = { info: say, warn: say, error: say }
  const listener = createListener({
    ...more,
    limits: { ...limits, ...more.limits },
    clock: systemClock,
    log,
    tls,
    handle: answer,
  })
  listeners.push(listener)
  const url = await listener.listen('127.0.0.1:0')
  return { listener, url, port: Number(new URL(url).port), lines }
}

async function answer({ req, res }: Arrival): Promise<void> {
  const body = `HTTP/${req.httpVersion}`
  res.writeHead(200, ['content-length', String(body.length)])
  res.end(body)
}

function agent(port: number, options: ConnectionOptions = {}, text = ''): Peer {
  const peer = watch(connect({ host: '127.0.0.1', servername: 'localhost', port, ca, ...options }))
  if (text !== '') peer.socket.write(text)
  return peer
}

/** Why the connection failed; for one that ends without an error `fin`. */
function failureOf(peer: Peer): Promise<string> {
  return new Promise((resolve) => {
    peer.socket.on('error', (error: Error & { code?: string }) => resolve(error.code ?? ''))
    peer.socket.on('close', () => resolve('fin'))
  })
}

async function serialOf(port: number): Promise<string> {
  const peer = agent(port, { rejectUnauthorized: false })
  await once(peer.socket, 'secureConnect')
  const serial = (peer.socket as TLSSocket).getPeerCertificate().serialNumber
  peer.socket.destroy()
  return serial
}

describe('createListener() with TLS', () => {
  test('answers HTTP/1.1 and tells an https URL', async () => {
    const { port, url } = await start(pair)
    expect(url).toBe(`https://127.0.0.1:${port}`)
    const peer = agent(port, { ALPNProtocols: ['http/1.1'] }, get)
    expect(await peer.has('\r\n\r\nHTTP/1.1')).toMatch(/^HTTP\/1\.1 200 /)
    expect((peer.socket as TLSSocket).alpnProtocol).toBe('http/1.1')
    // The next request on the same connection.
    peer.socket.write(get)
    await until(() => peer.text().split('HTTP/1.1 200').length === 3)
    peer.socket.destroy()
  })

  test('answers HTTP/1.1 to a client that says nothing of ALPN', async () => {
    const { port } = await start(pair)
    const peer = agent(port, {}, get)
    expect(await peer.has('\r\n\r\nHTTP/1.1')).toMatch(/^HTTP\/1\.1 200 /)
    peer.socket.destroy()
  })

  test('answers HTTP/2 to a client that asks for it', async () => {
    const { url } = await start(pair)
    const session = connectHttp2(url, { ca, servername: 'localhost' })
    const stream = session.request({ ':path': '/a' })
    let text = ''
    stream.on('data', (chunk: Buffer) => (text += chunk.toString()))
    await once(stream, 'end')
    expect(text).toBe('HTTP/2.0')
    expect(session.alpnProtocol).toBe('h2')
    session.destroy()
  })

  test('chooses HTTP/2 where both are offered', async () => {
    const { port } = await start(pair)
    const peer = agent(port, { ALPNProtocols: ['http/1.1', 'h2'] })
    await once(peer.socket, 'secureConnect')
    expect((peer.socket as TLSSocket).alpnProtocol).toBe('h2')
    peer.socket.destroy()
  })

  test('ends the handshake of a client that speaks neither', async () => {
    const { port } = await start(pair)
    const failure = await failureOf(agent(port, { ALPNProtocols: ['spdy/3'] }))
    expect(failure).toBe('ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL')
  })

  test('takes no HTTP/2 that was not agreed on, and no HTTP/1 where HTTP/2 was', async () => {
    const { port } = await start(pair)
    const preface = agent(port, {}, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
    expect(await preface.has('"code":"request-refused"')).toMatch(/^HTTP\/1\.1 400 /)
    const other = agent(port, { ALPNProtocols: ['h2'] }, get)
    await other.ended
    expect(other.text()).toBe('')
  })

  test('closes on clear text, without a word of HTTP', async () => {
    const { port } = await start(pair)
    const peer = watch(connectTcp(port, '127.0.0.1'))
    peer.socket.write(get)
    await peer.ended
    expect(peer.text()).not.toContain('HTTP')
    expect(await agent(port, {}, get).has('200 OK')).toContain('HTTP/1.1')
  })

  test('takes TLS 1.2 with a forward secret cipher, and neither TLS 1.1 nor another cipher', async () => {
    const { port } = await start(pair)
    const peer = agent(port, { maxVersion: 'TLSv1.2' }, get)
    await peer.has('200 OK')
    expect((peer.socket as TLSSocket).getProtocol()).toBe('TLSv1.2')
    expect(
      await failureOf(
        agent(port, {
          minVersion: 'TLSv1',
          maxVersion: 'TLSv1.1',
          ciphers: 'DEFAULT@SECLEVEL=0',
        }),
      ),
    ).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION')
    const weak = agent(port, { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA' })
    expect(await failureOf(weak)).toMatch(/HANDSHAKE_FAILURE/)
  })

  test('does not negotiate anew', async () => {
    const { port } = await start(pair)
    const peer = agent(port, { maxVersion: 'TLSv1.2' }, get)
    await peer.has('200 OK')
    const failed = Promise.withResolvers<string | undefined>()
    const socket = peer.socket as TLSSocket
    socket.on('error', (error: Error & { code?: string }) => failed.resolve(error.code))
    socket.renegotiate({}, () => undefined)
    expect(await failed.promise).toMatch(/NO_RENEGOTIATION/)
  })

  test('ends a handshake that does not come to an end', async () => {
    const { port } = await start(pair)
    const peer = watch(connectTcp(port, '127.0.0.1'))
    // The head of a ClientHello, and never the rest.
    peer.socket.write(Buffer.from('160301020001', 'hex'))
    await peer.ended
    expect(await agent(port, {}, get).has('200 OK')).toContain('HTTP/1.1')
  })

  test('answers 408 to a client that says nothing after its handshake', async () => {
    const { port } = await start(pair)
    expect(await agent(port).has('request-refused')).toMatch(/^HTTP\/1\.1 408 /)
  })

  test('resets what is above 256 handshakes at once, and serves again after', async () => {
    const { port } = await start(pair, { limits: { headTimeout: 60_000 } })
    const silent = Array.from({ length: 256 }, () => watch(connectTcp(port, '127.0.0.1')))
    await Promise.all(silent.map(({ socket }) => once(socket, 'connect')))
    const late = watch(connectTcp(port, '127.0.0.1'))
    expect(await late.ended).toBe('reset')
    for (const { socket } of silent) socket.destroy()
    let text = ''
    await until(() => {
      const peer = agent(port, {}, get)
      peer.socket.on('data', (chunk) => (text += chunk.toString()))
      return text.includes('200 OK')
    })
  })

  test('resets a connection unheard while memory is short', async () => {
    const { port } = await start(pair, { isOverloaded: () => true })
    expect(await agent(port, {}, get).ended).toBe('reset')
  })

  test('disposal ends connections in their handshake, after it and in HTTP/2', async () => {
    const { listener, port, url } = await start(pair, { limits: { headTimeout: 60_000 } })
    const silent = watch(connectTcp(port, '127.0.0.1'))
    await once(silent.socket, 'connect')
    const kept = agent(port, {}, get)
    await kept.has('200 OK')
    const session = connectHttp2(url, { ca, servername: 'localhost' })
    session.on('error', () => undefined)
    await once(session, 'remoteSettings')
    listeners.length = 0
    const over = once(session, 'close')
    await listener[Symbol.asyncDispose]()
    const ends = await Promise.all([silent.ended, kept.ended, over])
    expect(ends).toHaveLength(3)
  })
})

describe('createListener() with client certificates', () => {
  const strict = { ...pair, clientCaFile: localhostCertFile }
  const own = { cert: ca, key: readFileSync(localhostKeyFile) }

  test('serves a client whose certificate the authority has signed', async () => {
    const { port } = await start(strict)
    expect(await agent(port, own, get).has('200 OK')).toContain('HTTP/1.1')
  })

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'refuses one without a certificate, and one of a stranger, with %s',
    async (maxVersion) => {
      const { port } = await start(strict)
      const without = agent(port, { maxVersion }, get)
      expect(await failureOf(without)).not.toBe('')
      const stranger = agent(
        port,
        {
          maxVersion,
          cert: readFileSync(strangerCertFile),
          key: readFileSync(strangerKeyFile),
        },
        get,
      )
      await stranger.ended
      expect(without.text() + stranger.text()).toBe('')
    },
  )

  test('a resumed session does not outlive the authority that its certificate was checked by', async () => {
    const clientCaFile = join(directory, 'ca.pem')
    await copyFile(localhostCertFile, clientCaFile)
    const { port, lines } = await start({ ...pair, clientCaFile })
    const first = agent(port, own)
    const told = once(first.socket, 'session')
    first.socket.write(get)
    await first.has('200 OK')
    const [session] = (await told) as [Buffer]
    const again = agent(port, { ...own, session }, get)
    await again.has('200 OK')
    expect((again.socket as TLSSocket).isSessionReused()).toBe(true)
    await copyFile(strangerCertFile, clientCaFile)
    await until(() => lines.length > 0)
    const late = agent(port, { ...own, session }, get)
    await late.ended
    expect(late.text()).toBe('')
  })
})

/** With files of its own, to be replaced. */
async function startCopied(): Promise<Bench & { readonly cert: string; readonly key: string }> {
  const cert = join(directory, 'cert.pem')
  const key = join(directory, 'key.pem')
  await copyFile(localhostCertFile, cert)
  await copyFile(localhostKeyFile, key)
  return { ...(await start({ certFile: cert, keyFile: key })), cert, key }
}

describe('watchListenTls()', () => {
  test('takes up a new pair for new connections, and leaves the others alone', async () => {
    const { port, lines, cert, key } = await startCopied()
    const before = await serialOf(port)
    const kept = agent(port, {}, get)
    await kept.has('200 OK')
    await copyFile(strangerCertFile, cert)
    await copyFile(strangerKeyFile, key)
    await until(() => lines.length > 0)
    expect(lines).toEqual(["the certificate of the agents' port was replaced"])
    expect(await serialOf(port)).not.toBe(before)
    kept.socket.write(get)
    await until(() => kept.text().split('200 OK').length === 3)
    kept.socket.destroy()
  })

  test('keeps the old pair and says why when the new one is none, until it is one', async () => {
    const { port, lines, cert, key } = await startCopied()
    const before = await serialOf(port)
    await copyFile(strangerCertFile, cert)
    await until(() => lines.length > 0)
    expect(lines).toEqual([
      `the certificate of the agents' port stays: the new one is bad: listen.tls.keyFile: ${key}: Expected the key of certFile`,
    ])
    expect(await serialOf(port)).toBe(before)
    await copyFile(strangerKeyFile, key)
    await until(() => lines.length > 1)
    expect(await serialOf(port)).not.toBe(before)
  })
})

describe('readListenTls()', () => {
  test.each([
    ['certFile', { certFile: '', keyFile: localhostKeyFile }, 'Expected a certificate in PEM'],
    ['certFile', { certFile: 'no', keyFile: localhostKeyFile }, 'A certificate in it cannot'],
    ['keyFile', { certFile: localhostCertFile, keyFile: 'no' }, 'Expected a private key in PEM'],
    ['keyFile', { ...pair, keyFile: strangerKeyFile }, 'Expected the key of certFile'],
    ['clientCaFile', { ...pair, clientCaFile: '' }, 'Expected a certificate in PEM'],
  ])('refuses a bad %s', async (setting, config, why) => {
    const empty = join(directory, 'empty.pem')
    const bad = join(directory, 'bad.pem')
    await writeFile(empty, '')
    await writeFile(bad, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    const files = Object.fromEntries(
      Object.entries(config).map(([key, path]) => [
        key,
        path === '' ? empty : path === 'no' ? bad : path,
      ]),
    )
    const read = () => readListenTls(files as typeof pair)
    expect(read).toThrow(ListenTlsError)
    expect(read).toThrow(`listen.tls.${setting}: `)
    expect(read).toThrow(why)
  })

  test('says of a file that is not there which one it is', () => {
    const certFile = join(directory, 'absent.pem')
    expect(() => readListenTls({ ...pair, certFile })).toThrow(
      `listen.tls.certFile: ${certFile}: The file does not exist`,
    )
  })
})

describe('forward() over TLS', () => {
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'

  test('half an answer is a reset, without the close_notify of a whole one', async () => {
    await using relay = await startRelay({ tls: pair })
    const peer = agent(relay.port, {}, get)
    const upstream = await relay.upstreamPeer()
    await upstream.has('\r\n\r\n')
    upstream.socket.write(chunked)
    await peer.has('hello')
    upstream.socket.destroy()
    expect(await peer.ended).toBe('reset')
    expect(await relay.ended(1)).toMatchObject([{ end: 'upstream-failed' }])
  })

  test('a cut resets a stream, and what the agent had not taken is thrown away', async () => {
    await using relay = await startRelay({ tls: pair })
    const peer = agent(relay.port, {}, get)
    const upstream = await relay.upstreamPeer()
    await upstream.has('\r\n\r\n')
    upstream.socket.write(chunked)
    await peer.has('hello')
    relay.exchanges.cutAll('task-terminated')
    expect(await peer.ended).toBe('reset')
    expect(await relay.ended(1)).toMatchObject([{ end: 'cut' }])
  })

  test('a WebSocket passes both ways and gets its close frame when it is cut', async () => {
    await using relay = await startRelay({ tls: pair })
    const peer = agent(
      relay.port,
      {},
      'GET /ws HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    )
    const upstream = await relay.upstreamPeer()
    await upstream.has('\r\n\r\n')
    upstream.socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n',
    )
    await peer.has('101 Switching')
    upstream.socket.write(Buffer.from('8102686a', 'hex'))
    await peer.has('hj')
    relay.exchanges.cutAll('task-terminated')
    // FIN, opcode close; 1008.
    expect(await peer.has('\x88')).toContain('\x03\xf0')
    await peer.ended
  })
})
