import { constants } from 'node:http2'
import { describe, expect, test } from 'vitest'
import { openAgent, startFrameUpstream, startHttp2Upstream } from '../kit/http2.ts'
import {
  codeOf,
  dataFrame,
  errorCode,
  flag,
  frameType,
  goawayFrame,
  headersFrame,
  openFrames,
  rstFrame,
  type Field,
} from '../kit/http2-frames.ts'
import { startRelay, until } from '../kit/relay.ts'

const getHead: readonly Field[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':authority', 'agent'],
  [':path', '/a'],
]

describe('rules 32 and 41: forward() from an HTTP/2 agent to an HTTP/1 upstream', () => {
  test('sends one canonical request and streams both bodies', async () => {
    await using relay = await startRelay({ gated: true })
    await using agent = openAgent(relay.port)
    const asked = agent.ask({ ':method': 'POST', 'x-a': ['1', '2'] }, { endStream: false })
    asked.stream.write('first')
    const upstream = await relay.upstreamPeer()
    await upstream.has('first')
    expect(upstream.text()).toMatch(/^POST \/a HTTP\/1\.1\r\nhost: upstream\.example\r\n/)
    expect(upstream.text()).toContain('\r\nx-a: 1\r\nx-a: 2\r\n')
    expect(upstream.text()).toContain('\r\ntransfer-encoding: chunked\r\n')
    expect(upstream.text()).not.toMatch(/^:/m)
    upstream.socket.write(
      'HTTP/1.1 299 Odd\r\nX-B: 1\r\nX-B: 2\r\nConnection: keep-alive, x-c\r\nX-C: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n',
    )
    const { fields } = await asked.head
    expect(fields).toMatchObject({ ':status': 299, 'x-b': '1, 2' })
    expect(Object.keys(fields)).not.toEqual(expect.arrayContaining(['connection', 'x-c']))
    await asked.has('part')
    asked.stream.end('second')
    await upstream.has('second')
    upstream.socket.write('0\r\n\r\n')
    expect(await asked.closed).toBe(constants.NGHTTP2_NO_ERROR)
    expect(await relay.ended(1)).toEqual([{ status: 299, end: 'complete' }])
  })

  test.each([
    ['a HEAD', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n', '70000'],
    ['a 204', 'DELETE', 'HTTP/1.1 204 No Content\r\n\r\n', undefined],
    ['a 304', 'GET', 'HTTP/1.1 304 Not Modified\r\n\r\n', undefined],
    ['an empty body', 'GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', '0'],
  ])('ends the answer with its head when it is %s', async (_, method, given, length) => {
    await using relay = await startRelay()
    await using agent = openAgent(relay.port)
    const asked = agent.ask({ ':method': method })
    const upstream = await relay.upstreamPeer()
    upstream.socket.write(given)
    const { fields, endStream } = await asked.head
    expect(fields['content-length']).toBe(length)
    expect(endStream).toBe(true)
    expect(await asked.closed).toBe(constants.NGHTTP2_NO_ERROR)
    expect(await relay.ended(1)).toEqual([{ status: expect.any(Number), end: 'complete' }])
  })

  test('passes trailers to an agent that reads them', async () => {
    await using relay = await startRelay()
    await using agent = openAgent(relay.port)
    const asked = agent.ask({ te: 'trailers' })
    const upstream = await relay.upstreamPeer()
    upstream.socket.write(
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n',
    )
    expect(await asked.closed).toBe(constants.NGHTTP2_NO_ERROR)
    expect(asked.text()).toBe('ok')
    expect(asked.trailers()).toMatchObject({ 'x-sum': '1' })
    expect(asked.trailers()).not.toHaveProperty('set-cookie')
  })

  test.each(['constructor', '__proto__', 'toString'])(
    'outlives a trailer named %s, and passes those beside it',
    async (name) => {
      await using relay = await startRelay()
      await using agent = openAgent(relay.port)
      const asked = agent.ask({ te: 'trailers' })
      const upstream = await relay.upstreamPeer()
      upstream.socket.write(
        `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n${name}: 1\r\nX-Sum: 1\r\n\r\n`,
      )
      expect(await asked.closed).toBe(constants.NGHTTP2_NO_ERROR)
      expect(asked.trailers()).toMatchObject({ 'x-sum': '1' })
    },
  )

  test('passes trailers behind a body of a known length that came in one piece', async () => {
    await using served = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: served.url })
    await using agent = openAgent(relay.port)
    const asked = agent.ask({ te: 'trailers' })
    const { stream } = await served.next()
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    stream.respond({ ':status': 200, 'content-length': '5' }, { waitForTrailers: true })
    stream.end('hello')
    expect(await asked.closed).toBe(constants.NGHTTP2_NO_ERROR)
    expect(asked.text()).toBe('hello')
    expect(asked.trailers()).toMatchObject({ 'grpc-status': '0' })
  })

  test('resets the one stream when the upstream breaks off, never ends it', async () => {
    await using relay = await startRelay()
    const agent = openFrames(relay.port)
    agent.send(headersFrame(1, getHead), headersFrame(3, getHead))
    const broken = await relay.upstreamPeer()
    const whole = await relay.upstreamPeer()
    broken.socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n')
    await agent.frame((one) => one.type === frameType.data && one.payload.includes('part'))
    broken.socket.resetAndDestroy()
    const rst = await agent.frame((one) => one.type === frameType.rstStream)
    expect(codeOf(rst)).toBe(errorCode.internal)
    const ends = agent.frames.filter(
      (one) => one.stream === rst.stream && (one.flags & flag.endStream) !== 0,
    )
    expect(ends).toEqual([])
    whole.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    await agent.frame((one) => one.type === frameType.data && one.payload.includes('ok'))
    agent.socket.destroy()
  })

  test('takes an agent that resets its upload with it, and shows the upstream no end', async () => {
    await using relay = await startRelay()
    const agent = openFrames(relay.port)
    for (const code of [errorCode.cancel, errorCode.none]) {
      const stream = code === errorCode.cancel ? 1 : 3
      agent.send(headersFrame(stream, postHead, { endStream: false }), dataFrame(stream, 'part'))
      const upstream = await relay.upstreamPeer()
      await upstream.has('part')
      agent.send(rstFrame(stream, code))
      await upstream.ended
      expect(upstream.text()).not.toContain('\r\n0\r\n')
    }
    const gone = { status: null, end: 'client-gone' }
    expect(await relay.ended(2)).toEqual([
      expect.objectContaining(gone),
      expect.objectContaining(gone),
    ])
    agent.socket.destroy()
  })

  test('holds the agent back while the upstream does not read', async () => {
    await using relay = await startRelay()
    await using agent = openAgent(relay.port)
    const asked = agent.ask({ ':method': 'POST' }, { endStream: false })
    asked.stream.write('first')
    const upstream = await relay.upstreamPeer()
    await upstream.has('first')
    upstream.socket.pause()
    let sent = 0
    const piece = Buffer.alloc(65_536, 'x')
    const pump = (): void => {
      do sent += piece.length
      while (sent < total && asked.stream.write(piece))
    }
    const total = 64 * 1024 * 1024
    asked.stream.on('drain', pump)
    pump()
    let last = -1
    await until(() => {
      const isStill = sent === last
      last = sent
      return isStill && sent > 0
    })
    expect(sent).toBeLessThan(total)
    upstream.socket.resume()
    await until(() => upstream.bytes() > last)
  })
})

const postHead: readonly Field[] = [[':method', 'POST'], ...getHead.slice(1)]

describe('rule 41: forward() to an HTTP/2 upstream', () => {
  test('carries an HTTP/1 agent there and back', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = relay.agent(
      'POST /a?b=c HTTP/1.1\r\nHost: agent\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello',
    )
    const served = await upstream.next()
    await served.has('hello')
    expect(served.raw.slice(0, 8)).toEqual([
      ':method',
      'POST',
      ':scheme',
      'http',
      ':authority',
      'upstream.example',
      ':path',
      '/a?b=c',
    ])
    expect(served.fields).toMatchObject({ 'x-a': '1', 'content-length': '5', via: '1.1 chaperone' })
    served.stream.respond({ ':status': 201, 'set-cookie': 'a=b', 'x-b': ['1', '2'] })
    served.stream.end('answer')
    const text = await agent.has('answer')
    expect(text).toMatch(/^HTTP\/1\.1 201 /)
    expect(text).toContain('x-b: 1\r\nx-b: 2\r\n')
    expect(text).not.toContain('set-cookie')
    expect(await relay.ended(1)).toEqual([{ status: 201, end: 'complete' }])
  })

  test('carries many requests over one connection, and opens another when the upstream has no room', async () => {
    await using upstream = await startHttp2Upstream({ maxConcurrentStreams: 2 })
    await using relay = await startRelay({
      protocol: 'http2',
      upstreamUrl: upstream.url,
      maxConnections: 2,
    })
    await using agent = openAgent(relay.port)
    const first = agent.ask({})
    await answer(await upstream.next())
    await first.closed
    const asked = Array.from({ length: 5 }, () => agent.ask({}))
    await until(() => upstream.streams.length === 5)
    expect(upstream.sessions).toHaveLength(2)
    for (let served = 0; served < 5; served += 1) await answer(await upstream.next())
    expect(await Promise.all(asked.map(({ closed }) => closed))).toEqual([0, 0, 0, 0, 0])
    expect(upstream.sessions).toHaveLength(2)
  })

  test('does not take an answer that was reset for a whole one, whatever the code', async () => {
    await using upstream = await startFrameUpstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = openFrames(relay.port)
    const codes = [errorCode.none, errorCode.cancel, errorCode.enhanceYourCalm]
    let peer: Awaited<ReturnType<typeof upstream.next>> | undefined
    for (const [index, code] of codes.entries()) {
      const stream = index * 2 + 1
      agent.send(headersFrame(stream, getHead))
      peer ??= await upstream.next()
      await peer.frame((one) => one.type === frameType.headers && one.stream === stream)
      peer.send(headersFrame(stream, [[':status', '200']], { endStream: false }))
      peer.send(dataFrame(stream, 'part'))
      await agent.frame((one) => one.type === frameType.data && one.stream === stream)
      peer.send(rstFrame(stream, code))
      const rst = await agent.frame(
        (one) => one.type === frameType.rstStream && one.stream === stream,
      )
      expect(codeOf(rst)).toBe(code === errorCode.none ? errorCode.internal : code)
      expect(
        agent.frames.filter((one) => one.stream === stream && one.type === frameType.data),
      ).toEqual([expect.objectContaining({ flags: 0 })])
    }
    const failed = { status: 200, end: 'upstream-failed', error: 'ERR_UPSTREAM_STREAM' }
    expect(await relay.ended(3)).toEqual([failed, failed, failed])
    agent.socket.destroy()
  })

  test.each([
    ['ends its connection', (socket: { end(): void }) => socket.end()],
    ['resets its connection', (socket: { resetAndDestroy(): void }) => socket.resetAndDestroy()],
  ])('resets the agent when the upstream %s in the middle of an answer', async (_, spoil) => {
    await using upstream = await startFrameUpstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = relay.agent('GET /a HTTP/1.1\r\nHost: agent\r\n\r\n')
    const peer = await upstream.next()
    await peer.frame((one) => one.type === frameType.headers)
    peer.send(headersFrame(1, [[':status', '200']], { endStream: false }), dataFrame(1, 'part'))
    await agent.has('part')
    spoil(peer.socket)
    expect(await agent.ended).toBe('reset')
    expect(await relay.ended(1)).toEqual([
      { status: 200, end: 'upstream-failed', error: expect.any(String) },
    ])
  })

  test.each([
    ['refuses the stream', (stream: number) => rstFrame(stream, errorCode.refusedStream)],
    ['goes away without it', (stream: number) => goawayFrame(stream - 2, errorCode.none)],
  ])('sends a GET again, once, when the upstream %s', async (_, refusal) => {
    await using upstream = await startFrameUpstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const first = agent.ask({})
    const peer = await upstream.next()
    await peer.frame((one) => one.stream === 1)
    peer.send(headersFrame(1, [[':status', '204']]))
    await first.closed
    const asked = agent.ask({})
    await peer.frame((one) => one.stream === 3)
    peer.send(refusal(3))
    const again = await Promise.race([
      upstream.next(),
      peer.frame((one) => one.stream === 5).then(() => peer),
    ])
    const { stream } = await again.frame(
      (one) => one.type === frameType.headers && (again === peer ? one.stream === 5 : true),
    )
    again.send(headersFrame(stream, [[':status', '200']]))
    expect((await asked.head).fields[':status']).toBe(200)
  })

  test('answers 502 when the upstream refuses a POST: it is never sent again', async () => {
    await using upstream = await startFrameUpstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const asked = agent.ask({ ':method': 'POST' })
    const peer = await upstream.next()
    await peer.frame((one) => one.stream === 1)
    peer.send(rstFrame(1, errorCode.refusedStream))
    expect((await asked.head).fields[':status']).toBe(502)
    await asked.has('"code":"upstream-unreachable"')
    expect(peer.frames.filter((one) => one.type === frameType.headers)).toHaveLength(1)
  })

  test('cancels at the upstream what the agent leaves, and ends nothing there', async () => {
    await using upstream = await startFrameUpstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = openFrames(relay.port)
    agent.send(headersFrame(1, postHead, { endStream: false }), dataFrame(1, 'part'))
    const peer = await upstream.next()
    await peer.frame((one) => one.type === frameType.data)
    agent.send(rstFrame(1, errorCode.cancel))
    const rst = await peer.frame((one) => one.type === frameType.rstStream)
    expect(codeOf(rst)).toBe(errorCode.cancel)
    const ends = peer.frames.filter((one) => one.stream === 1 && (one.flags & flag.endStream) !== 0)
    expect(ends).toEqual([])
    agent.socket.destroy()
  })

  test('passes an answer that comes in the middle of an upload', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const asked = agent.ask({ ':method': 'POST' }, { endStream: false })
    asked.stream.write('part')
    const served = await upstream.next()
    await served.has('part')
    served.stream.respond({ ':status': 413 })
    served.stream.end('too much')
    expect((await asked.head).fields[':status']).toBe(413)
    await asked.has('too much')
    expect(await relay.ended(1)).toEqual([{ status: 413, end: 'complete' }])
  })

  test('holds the upstream back while the agent does not read', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = openFrames(relay.port)
    agent.send(headersFrame(1, getHead))
    const served = await upstream.next()
    served.stream.respond({ ':status': 200 })
    const total = 64 * 1024 * 1024
    let sent = 0
    const piece = Buffer.alloc(65_536, 'x')
    const pump = (): void => {
      do sent += piece.length
      while (sent < total && served.stream.write(piece))
    }
    served.stream.on('drain', pump)
    pump()
    let last = -1
    await until(() => {
      const isStill = sent === last
      last = sent
      return isStill
    })
    expect(sent).toBeLessThan(total)
    agent.socket.destroy()
  })

  test('answers 502 when the answer does not come in time', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({
      protocol: 'http2',
      upstreamUrl: upstream.url,
      headersTimeoutMs: 100,
    })
    await using agent = openAgent(relay.port)
    const asked = agent.ask({})
    const served = await upstream.next()
    expect((await asked.head).fields[':status']).toBe(502)
    expect(await served.closed).toBe(errorCode.cancel)
  })
})

async function answer({
  stream,
}: Awaited<ReturnType<Awaited<ReturnType<typeof startHttp2Upstream>>['next']>>): Promise<void> {
  stream.respond({ ':status': 200 })
  stream.end('ok')
}
