import { describe, expect, test } from 'vitest'
import {
  codeOf,
  dataFrame,
  errorCode,
  frame,
  frameType,
  headerBlock,
  headersFrame,
  openFrames,
  rstFrame,
  type Field,
  type FramePeer,
} from '../kit/http2-frames.ts'
import { startRelay, until, type Relay } from '../kit/relay.ts'
import { settle } from './probe.ts'

const pseudo = {
  method: [':method', 'GET'],
  scheme: [':scheme', 'http'],
  authority: [':authority', 'agent'],
  path: [':path', '/a'],
} as const satisfies Record<string, Field>

/** A GET whose pseudo-header fields are as changed, with more fields behind them. */
function get(
  changes: Partial<Record<keyof typeof pseudo, string | undefined>> = {},
  more: readonly Field[] = [],
): readonly Field[] {
  const own = Object.values(pseudo).flatMap(([name, value]): readonly Field[] => {
    const key = name.slice(1)
    const changed = key in changes ? changes[key as keyof typeof pseudo] : value
    return changed === undefined ? [] : [[name, changed]]
  })
  return [...own, ...more]
}

const big = 'x'.repeat(8192)

const refused: readonly (readonly [string, readonly Field[]])[] = [
  ['two :method', get({}, []).toSpliced(1, 0, [':method', 'POST'])],
  ['two :path', get({}, []).toSpliced(3, 0, [':path', '/b'])],
  ['two :authority', get({}, []).toSpliced(3, 0, [':authority', 'other'])],
  ['no :method', get({ method: undefined })],
  ['no :scheme', get({ scheme: undefined })],
  ['no :path', get({ path: undefined })],
  ['an empty :path', get({ path: '' })],
  ['an unknown pseudo-header field', [...get(), [':user', 'root']]],
  ['a :status', [...get(), [':status', '200']]],
  [
    'a pseudo-header field behind a regular one',
    [...get({ path: undefined }), ['x-a', '1'], [':path', '/b']],
  ],
  ['another scheme', get({ scheme: 'ftp' })],
  ['no authority', get({ authority: undefined })],
  ['an empty authority', get({ authority: '' })],
  ['an authority with userinfo', get({ authority: 'a@agent' })],
  ['an authority with a path', get({ authority: 'agent/b' })],
  ['another host than the authority', get({}, [['host', 'other']])],
  [
    'two host',
    get({ authority: undefined }, [
      ['host', 'agent'],
      ['host', 'other'],
    ]),
  ],
  [
    'CONNECT',
    [
      [':method', 'CONNECT'],
      [':authority', 'other:443'],
    ],
  ],
  ['an extended CONNECT', get({ method: 'CONNECT' }, [[':protocol', 'websocket']])],
  ['TRACE', get({ method: 'TRACE' })],
  ['a method in lower case', get({ method: 'get' })],
  ['an absolute :path', get({ path: 'http://other/a' })],
  ['the :path "*"', get({ method: 'OPTIONS', path: '*' })],
  ['a fragment', get({ path: '/a#b' })],
  ['a dot segment', get({ path: '/a/../b' })],
  ['an encoded slash', get({ path: '/a%2fb' })],
  ['a field name with a capital letter', get({}, [['X-A', '1']])],
  ['a field name with "_"', get({}, [['task_id', '1']])],
  ['a NUL in :path', get({ path: '/a\u0000' })],
  ['connection', get({}, [['connection', 'x-a']])],
  ['keep-alive', get({}, [['keep-alive', '1']])],
  ['proxy-connection', get({}, [['proxy-connection', 'close']])],
  ['transfer-encoding', get({}, [['transfer-encoding', 'chunked']])],
  ['upgrade', get({}, [['upgrade', 'h2c']])],
  ['http2-settings', get({}, [['http2-settings', 'AAMAAABkAAQAAP__']])],
  ['te that is not "trailers"', get({}, [['te', 'gzip']])],
  [
    'two content-length',
    get({}, [
      ['content-length', '0'],
      ['content-length', '1'],
    ]),
  ],
  ['a length without a body', get({}, [['content-length', '5']])],
  ['a length with a sign', get({}, [['content-length', '+0']])],
  ['another expectation', get({}, [['expect', 'more']])],
  [
    'two content-type',
    get({}, [
      ['content-type', 'a/b'],
      ['content-type', 'c/d'],
    ]),
  ],
  [
    'more than 100 fields',
    get(
      {},
      Array.from({ length: 101 }, (_, n): Field => [`x-${n}`, '1']),
    ),
  ],
  [
    'a head over the limit',
    get({}, [
      ['x-a', big],
      ['x-b', big],
      ['x-c', big],
    ]),
  ],
]

describe('rule 42: the rules of the wire over HTTP/2', () => {
  test.each(refused)('%s is refused', async (_, fields) => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    agent.send(headersFrame(1, fields))
    await refusedOn(agent, 1)
    await settle()
    expect(relay.upstreamConnections()).toBe(0)
    agent.socket.destroy()
  })

  // The parser leaves such a field out and goes on (RFC 9113 section 8.2.1 would have the stream refused).
  test.each<readonly [string, readonly Field[]]>([
    ['a field name with a space', [['x a', '1']]],
    ['a field name with a colon', [['x:a', '1']]],
    ['an empty field name', [['', '1']]],
    ['a CR LF in a value', [['x-a', '1\r\nx-b: 2']]],
    ['a NUL in a value', [['x-a', '1\u0000x-b\u00002']]],
    ['a value that begins with a space', [['x-a', ' 1']]],
  ])('%s never reaches the upstream', async (_, fields) => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    agent.send(headersFrame(1, get({}, [...fields, ['x-good', '3']])))
    const upstream = await relay.upstreamPeer()
    const text = await upstream.has('\r\n\r\n')
    expect(text.split('\r\n')).toEqual([
      'GET /a HTTP/1.1',
      'host: upstream.example',
      'connection: keep-alive',
      'x-good: 3',
      'via: 1.1 chaperone',
      '',
      '',
    ])
    agent.socket.destroy()
  })

  test('HEAD with a body is refused', async () => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    agent.send(headersFrame(1, get({ method: 'HEAD' }), { endStream: false }))
    await agent.frame((one) => one.type === frameType.headers)
    await settle()
    expect(relay.upstreamConnections()).toBe(0)
    agent.socket.destroy()
  })

  test.each([
    ['less', 'abc'],
    ['more', 'abcdefg'],
  ])('a body of %s than its length never looks whole to the upstream', async (_, body) => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    const fields = get({ method: 'POST' }, [['content-length', '5']])
    agent.send(headersFrame(1, fields, { endStream: false }))
    await until(() => relay.upstreamConnections() === 1)
    agent.send(dataFrame(1, body, { endStream: true }))
    const end = await agent.frame(
      (one) => one.type === frameType.rstStream || one.type === frameType.goaway,
    )
    expect([errorCode.protocol, errorCode.internal]).toContain(codeOf(end))
    const upstream = await relay.upstreamPeer()
    await upstream.ended
    expect(upstream.text().split('\r\n\r\n')[1]?.length ?? 0).toBeLessThan(5)
    agent.socket.destroy()
  })

  test('host alone serves as the authority, and cookies in crumbs stay here', async () => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    const fields = get({ authority: undefined }, [
      ['host', 'agent'],
      ['cookie', 'a=b'],
      ['cookie', 'c=d'],
      ['x-a', '1'],
    ])
    agent.send(headersFrame(1, fields))
    const upstream = await relay.upstreamPeer()
    await upstream.has('\r\n\r\n')
    expect(upstream.text()).toMatch(/^GET \/a HTTP\/1\.1\r\nhost: upstream\.example\r\n/)
    expect(upstream.text()).toContain('\r\nx-a: 1\r\n')
    expect(upstream.text()).not.toMatch(/cookie|agent/)
    agent.socket.destroy()
  })

  test('trailers of a request do not pass', async () => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    agent.send(
      headersFrame(1, get({ method: 'POST' }), { endStream: false }),
      dataFrame(1, 'body'),
      headersFrame(1, [['x-late', '1']]),
    )
    const upstream = await relay.upstreamPeer()
    await upstream.has('0\r\n\r\n')
    expect(upstream.text()).not.toContain('x-late')
    agent.socket.destroy()
  })

  test('a frame on a stream that was refused is never taken for another request', async () => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    agent.send(headersFrame(1, get({ method: 'POST', path: '/a//b' }), { endStream: false }))
    await agent.frame((one) => one.payload.includes('request-refused'))
    agent.send(dataFrame(1, 'GET /smuggled HTTP/1.1\r\nHost: agent\r\n\r\n', { endStream: true }))
    agent.send(headersFrame(3, get({ path: '/next' })))
    const upstream = await relay.upstreamPeer()
    await upstream.has('\r\n\r\n')
    expect(upstream.text()).toMatch(/^GET \/next /)
    expect(upstream.text()).not.toContain('smuggled')
    expect(relay.upstreamConnections()).toBe(1)
    agent.socket.destroy()
  })
})

describe('The limits of an HTTP/2 connection', () => {
  test('a stream above the advertised number is refused, the others go on', async () => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    agent.send(...Array.from({ length: 101 }, (_, n) => headersFrame(n * 2 + 1, get())))
    const rst = await agent.frame((one) => one.type === frameType.rstStream)
    expect(rst.stream).toBe(201)
    expect(codeOf(rst)).toBe(errorCode.refusedStream)
    await until(() => relay.exchanges.count === 100)
    agent.socket.destroy()
  })

  test('an agent that knows the number and passes it loses its connection', async () => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    const settings = await agent.frame((one) => one.type === frameType.settings)
    expect(maxConcurrentStreams(settings.payload)).toBe(100)
    agent.send(...Array.from({ length: 101 }, (_, n) => headersFrame(n * 2 + 1, get())))
    await agent.frame((one) => one.type === frameType.goaway)
    await agent.ended
    await until(() => relay.exchanges.count === 0)
  })

  test('a rapid reset ends the connection, and what it began is bounded', async () => {
    let begun = 0
    const { promise: never } = Promise.withResolvers<void>()
    await using relay = await startRelay({
      before: async () => {
        begun += 1
        await never
      },
    })
    const agent = openFrames(relay.port)
    // In pieces, each of them begun before the next: the limit of resets lies above what this needs.
    const frames = rapidResets(160, get())
    for (let at = 0; at < frames.length; at += 30) {
      agent.send(...frames.slice(at, at + 30))
      await until(() => begun >= Math.min(150, (at + 30) / 2))
    }
    const goaway = await agent.frame((one) => one.type === frameType.goaway)
    expect(codeOf(goaway)).toBe(errorCode.enhanceYourCalm)
    await agent.ended
    expect(begun).toBe(150)
    await nextAgentIsServed(relay)
  })

  test('a rapid reset ends the connection by its number alone', async () => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    // Above our limit, below the parser's own.
    agent.send(...rapidResets(600, get({ path: '/a//b' })))
    const goaway = await agent.frame((one) => one.type === frameType.goaway)
    expect(codeOf(goaway)).toBe(errorCode.internal)
    await agent.ended
    await nextAgentIsServed(relay)
  })

  test('a flood of CONTINUATION ends the connection', async () => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    agent.send(frame('headers', { stream: 1, payload: headerBlock(get()) }))
    for (let n = 0; n < 100; n += 1) {
      agent.send(frame('continuation', { stream: 1, payload: headerBlock([[`x-${n}`, '1']]) }))
    }
    await agent.frame((one) => one.type === frameType.goaway)
    await agent.ended
    expect(relay.upstreamConnections()).toBe(0)
    await nextAgentIsServed(relay)
  })

  test.each([
    ['a frame over the size limit', frame('data', { stream: 1, payload: Buffer.alloc(16_385) })],
    ['a SETTINGS with a bad length', frame('settings', { payload: Buffer.alloc(5) })],
    ['a window over the limit', frame('windowUpdate', { payload: Buffer.of(127, 255, 255, 255) })],
    ['DATA on a stream that was never opened', dataFrame(7, 'x')],
    ['a stream of the server', headersFrame(2, get())],
  ])('%s ends the connection', async (_, bytes) => {
    await using relay = await startRelay({ gated: true })
    const agent = openFrames(relay.port)
    agent.send(bytes)
    await agent.frame((one) => one.type === frameType.goaway)
    await agent.ended
    expect(relay.upstreamConnections()).toBe(0)
    await nextAgentIsServed(relay)
  })
})

/** Requests that are reset as soon as they are sent. */
function rapidResets(count: number, fields: readonly Field[]): readonly Buffer[] {
  return Array.from({ length: count }, (_, n) => n * 2 + 1).flatMap((stream) => [
    headersFrame(stream, fields),
    rstFrame(stream, errorCode.cancel),
  ])
}

/** RST_STREAM, GOAWAY, or an answer with our denial. */
async function refusedOn(agent: FramePeer, stream: number): Promise<void> {
  await agent.frame(
    (one) =>
      one.type === frameType.goaway ||
      (one.stream === stream && one.type === frameType.rstStream) ||
      (one.stream === stream && one.payload.includes('"code":"request-refused"')),
  )
}

async function nextAgentIsServed(relay: Relay): Promise<void> {
  const agent = openFrames(relay.port)
  const before = relay.exchanges.count
  agent.send(headersFrame(1, get()))
  await until(() => relay.exchanges.count > before)
  agent.socket.destroy()
}

function maxConcurrentStreams(payload: Buffer): number | undefined {
  for (let at = 0; at + 6 <= payload.length; at += 6) {
    if (payload.readUInt16BE(at) === 3) return payload.readUInt32BE(at + 2)
  }
  return undefined
}
