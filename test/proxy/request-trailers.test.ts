import { constants } from 'node:http2'
import { Readable } from 'node:stream'
import { Client } from 'undici'
import { describe, expect, test } from 'vitest'
import { requestTrailers } from '../../proxy/request-trailers.ts'
import { openAgent, startHttp2Upstream } from '../kit/http2.ts'
import { dataFrame, headersFrame, openFrames, type Field } from '../kit/http2-frames.ts'
import { startRawUpstream, startRelay, until } from '../kit/relay.ts'

const chunkedHead =
  'POST /a HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: chunked\r\nConnection: X-Listed\r\n\r\n5\r\nhello\r\n'

function chunked(...trailers: readonly string[]): string {
  return `${chunkedHead}0\r\n${trailers.map((line) => `${line}\r\n`).join('')}\r\n`
}

describe('requestTrailers()', () => {
  const options = { rawHeaders: ['Connection', 'close, X-Listed'], slots: ['x-secret'] }

  test('passes what says something of the body, with its repetitions', () => {
    const raw = [
      'X-Checksum',
      'abc',
      'Digest',
      'sha-256=x',
      'X-Checksum',
      'def',
      'Server-Timing',
      '',
    ]
    expect(requestTrailers(raw, options)).toEqual([
      ['x-checksum', 'abc'],
      ['digest', 'sha-256=x'],
      ['x-checksum', 'def'],
      ['server-timing', ''],
    ])
  })

  test.each([
    // Framing and connection.
    'Content-Length',
    'Transfer-Encoding',
    'Connection',
    'Keep-Alive',
    'Upgrade',
    'TE',
    'Trailer',
    'Expect',
    'HTTP2-Settings',
    'Proxy-Connection',
    'X-Listed',
    // Routing, and the path that it came.
    'Host',
    'Via',
    'Forwarded',
    'X-Forwarded-Host',
    'X-Original-URL',
    'X-HTTP-Method-Override',
    // Identity, credential and task.
    'Authorization',
    'Cookie',
    'X-Api-Key',
    'X-Secret',
    'Task-Grant',
    'Task-Id',
    'Task-Approval',
    'Proxy-Authorization',
    'X-Amz-Security-Token',
    'X-Spiffe-Id',
    'Chaperone-Decision',
    // What the decision or a server acts on.
    'Content-Type',
    'Content-Encoding',
    'Mcp-Method',
    'Mcp-Session-Id',
    'If-Match',
    'Range',
    'Accept',
    'Accept-Encoding',
    'Origin',
    'Sec-WebSocket-Key',
    'grpc-timeout',
    'Cache-Control',
    // Other spellings, and what has no form.
    'Task_Id',
    'X_Api_Key',
    ':path',
    'x a',
    '',
    'x\r\ny',
    '__proto__',
  ])('drops %j', (name) => {
    expect(requestTrailers([name, '1', 'X-Sum', '2'], options)).toEqual([['x-sum', '2']])
  })

  test('drops a value with a control byte', () => {
    expect(requestTrailers(['X-A', 'a\r\nX-B: 1', 'X-C', 'a\0'], options)).toEqual([])
  })
})

describe('forward() with trailers of a request', () => {
  test('passes them from HTTP/1 to an HTTP/2 upstream, without those of others', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    relay.agent(
      chunked('X-Sum: 7', 'X-Sum: 8', 'Authorization: Bearer no', 'Task-Id: T', 'X-Injected: no'),
    )
    const served = await upstream.next()
    await served.whole
    expect(served.trailers()).toEqual({ 'x-sum': '7, 8' })
    expect(served.text()).toBe('hello')
    served.stream.respond({ ':status': 204 }, { endStream: true })
    expect(await relay.ended(1)).toEqual([{ status: 204, end: 'complete' }])
  })

  test('passes them from HTTP/2 to HTTP/2, time after time', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    for (let round = 0; round < 50; round += 1) {
      const stream = agent.session.request(
        { ':path': '/a', ':method': 'POST' },
        { waitForTrailers: true },
      )
      stream.on('wantTrailers', () =>
        stream.sendTrailers({ 'x-sum': String(round), 'x-injected': 'no' }),
      )
      stream.end('hello')
      const served = await upstream.next()
      await served.whole
      expect(served.trailers()).toEqual({ 'x-sum': String(round) })
      served.stream.respond({ ':status': 200 }, { endStream: true })
      await relay.ended(round + 1)
    }
  })

  test('a body without trailers ends as before', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    relay.agent(chunked('Authorization: Bearer no'))
    const served = await upstream.next()
    await served.whole
    expect(served.trailers()).toBeUndefined()
    expect(served.text()).toBe('hello')
  })

  test('drops them on the way to HTTP/1: the library has no way to send any', async () => {
    await using relay = await startRelay()
    await using agent = openAgent(relay.port)
    const stream = agent.session.request(
      { ':path': '/a', ':method': 'POST' },
      { waitForTrailers: true },
    )
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7' }))
    stream.on('error', () => undefined)
    stream.end('hello')
    const upstream = await relay.upstreamPeer()
    expect(await upstream.has('0\r\n\r\n')).not.toContain('x-sum')
  })

  test.each([
    ['many more than 100 of them', Array.from({ length: 150 }, (_, n) => `X-${n}: 1`)],
    ['more bytes than a head may have', [`X-A: ${'a'.repeat(20_000)}`]],
    ['one that is malformed', ['X-A : 1']],
    ['a bare LF', ['X-A: 1\nX-B: 2\0']],
  ])('%s end the request, and it never looks whole', async (_, trailers) => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = relay.agent(chunkedHead)
    const served = await upstream.next()
    await served.has('hello')
    agent.socket.write(`0\r\n${trailers.join('\r\n')}\r\n\r\n`)
    expect(await served.closed).toBe(constants.NGHTTP2_CANCEL)
    expect(served.isAborted()).toBe(true)
    expect(served.trailers()).toBeUndefined()
    expect(await relay.ended(1)).toMatchObject([{ end: 'client-gone' }])
  })

  test('many more than 100 of them end a stream of HTTP/2', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = openFrames(relay.port)
    const post: readonly Field[] = [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':authority', 'agent'],
      [':path', '/a'],
    ]
    agent.send(headersFrame(1, post, { endStream: false }), dataFrame(1, 'hello'))
    const served = await upstream.next()
    await served.has('hello')
    agent.send(
      headersFrame(
        1,
        Array.from({ length: 150 }, (_, n): Field => [`x-${n}`, '1']),
      ),
    )
    expect(await served.closed).toBe(constants.NGHTTP2_CANCEL)
    expect(served.isAborted()).toBe(true)
    expect(served.trailers()).toBeUndefined()
    agent.socket.destroy()
  })

  test('a cut sends none', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = relay.agent(chunkedHead)
    const served = await upstream.next()
    await served.has('hello')
    relay.exchanges.cutAll('task-terminated')
    agent.socket.write('0\r\nX-Sum: 7\r\n\r\n')
    expect(await served.closed).toBe(constants.NGHTTP2_CANCEL)
    expect(served.trailers()).toBeUndefined()
  })
})

describe('undici', () => {
  test('sends no trailers over HTTP/1, wherever they stand', async () => {
    const upstream = await startRawUpstream()
    const client = new Client(upstream.url)
    const body = Object.assign(Readable.from([Buffer.from('hello')], { objectMode: false }), {
      rawTrailers: ['x-sum', '7'],
      trailers: { 'x-sum': '7' },
    })
    const options = { path: '/', method: 'POST' as const, body, trailers: { 'x-sum': '7' } }
    client.request(options).catch(() => undefined)
    const peer = await upstream.next()
    await until(() => peer.text().endsWith('0\r\n\r\n'))
    expect(peer.text()).toMatch(/\r\n\r\n5\r\nhello\r\n0\r\n\r\n$/)
    await client.destroy()
    await upstream.close()
  })
})
