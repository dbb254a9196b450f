import { describe, expect, test } from 'vitest'
import type { ResponseFilter } from '../../proxy/response-filter.ts'
import { openAgent, startFrameUpstream, startHttp2Upstream } from '../kit/http2.ts'
import {
  codeOf,
  dataFrame,
  errorCode,
  flag,
  frameType,
  headersFrame,
  openFrames,
  type Field,
  type FramePeer,
} from '../kit/http2-frames.ts'
import { startRelay, type Relay, type RelayOptions } from '../kit/relay.ts'

const head = (method: string): readonly Field[] => [
  [':method', method],
  [':scheme', 'http'],
  [':authority', 'agent'],
  [':path', '/a'],
]

/** What the agent's frames say of the end of a stream. */
function endsOf(peer: FramePeer, stream: number) {
  const own = peer.frames.filter((one) => one.stream === stream)
  return {
    rst: own.filter((one) => one.type === frameType.rstStream).map(codeOf),
    isEnded: own.some(
      (one) =>
        (one.type === frameType.data || one.type === frameType.headers) &&
        (one.flags & flag.endStream) !== 0,
    ),
  }
}

describe('a cut on HTTP/2', () => {
  test('resets one stream on both sides and leaves its siblings on both connections alone', async () => {
    await using upstream = await startFrameUpstream()
    await using relay = await startHttp2Relay(upstream.url)
    const agent = openFrames(relay.port)
    const first = await live(relay, { agent, upstream, stream: 1 })
    expect(relay.exchanges.cutAll('task-terminated')).toBe(1)
    const second = await live(relay, { agent, upstream, stream: 3, peer: first.peer })

    first.peer.send(dataFrame(first.stream, 'later'))
    const rst = await agent.frame((one) => one.type === frameType.rstStream)
    expect(rst.stream).toBe(1)
    expect(endsOf(agent, 1)).toEqual({ rst: [errorCode.internal], isEnded: false })
    const up = await first.peer.frame((one) => one.type === frameType.rstStream)
    expect([up.stream, codeOf(up)]).toEqual([first.stream, errorCode.cancel])

    second.peer.send(dataFrame(second.stream, 'whole', { endStream: true }))
    await agent.frame((one) => one.stream === 3 && (one.flags & flag.endStream) !== 0)
    expect(endsOf(agent, 3)).toEqual({ rst: [], isEnded: true })
    const texts = agent.frames.map(({ payload }) => payload.toString('latin1')).join('')
    expect(texts).toContain('whole')
    expect(texts).not.toContain('later')
    expect(await relay.ended(2)).toEqual([
      { status: 200, end: 'cut' },
      { status: 200, end: 'complete' },
    ])
    agent.socket.destroy()
  })

  test('drops what waits for an agent that gives no more window', async () => {
    await using upstream = await startFrameUpstream()
    await using relay = await startHttp2Relay(upstream.url)
    const agent = openFrames(relay.port)
    const { peer, stream } = await live(relay, { agent, upstream, stream: 1 })
    // More than the agent's window of 65,535 bytes, less than what the upstream may send.
    for (let sent = 0; sent < 3; sent += 1) peer.send(dataFrame(stream, Buffer.alloc(16_000, 'x')))
    await agent.frame((one) => one.payload.length > 10_000)
    relay.exchanges.cutAll('task-terminated')
    await agent.frame((one) => one.type === frameType.rstStream)
    expect(endsOf(agent, 1)).toEqual({ rst: [errorCode.internal], isEnded: false })
    agent.socket.destroy()
  })

  test('answers with the denial when no head was sent', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startHttp2Relay(upstream.url)
    await using agent = openAgent(relay.port)
    const asked = agent.ask({})
    const served = await upstream.next()
    relay.exchanges.cutAll('task-terminated')
    expect((await asked.head).fields).toMatchObject({
      ':status': 403,
      'chaperone-denial': 'task-terminated',
    })
    await asked.has('"code":"task-terminated"')
    expect(await served.closed).toBe(errorCode.cancel)
    expect(await relay.ended(1)).toEqual([{ status: 403, end: 'cut' }])
  })

  test('stops an upload: the upstream gets RST_STREAM and no end, the agent the denial', async () => {
    await using upstream = await startFrameUpstream()
    await using relay = await startHttp2Relay(upstream.url)
    const agent = openFrames(relay.port)
    agent.send(headersFrame(1, head('POST'), { endStream: false }), dataFrame(1, 'part'))
    const peer = await upstream.next()
    const { stream } = await peer.frame((one) => one.type === frameType.data)
    relay.exchanges.cutAll('task-terminated')
    agent.send(dataFrame(1, 'later'))
    await agent.frame((one) => one.payload.includes('task-terminated'))
    await peer.frame((one) => one.type === frameType.rstStream)
    expect(endsOf(peer, stream)).toEqual({ rst: [errorCode.cancel], isEnded: false })
    expect(peer.frames.some(({ payload }) => payload.includes('later'))).toBe(false)
    agent.socket.destroy()
  })

  test('ends a stream with its final message, where the dialect has one', async () => {
    const filter: ResponseFilter = {
      head: () => 'pass',
      chunk: (chunk) => chunk,
      end: () => undefined,
      final: ({ code }) => Buffer.from(`final: ${code}`),
    }
    await using upstream = await startFrameUpstream()
    await using relay = await startHttp2Relay(upstream.url, { filter })
    const agent = openFrames(relay.port)
    await live(relay, { agent, upstream, stream: 1 })
    relay.exchanges.cutAll('task-terminated')
    await agent.frame((one) => one.payload.includes('final: task-terminated'))
    await agent.frame((one) => one.stream === 1 && (one.flags & flag.endStream) !== 0)
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'cut' }])
    agent.socket.destroy()
  })
})

function startHttp2Relay(upstreamUrl: string, more: RelayOptions = {}): Promise<Relay> {
  return startRelay({ protocol: 'http2', upstreamUrl, ...more })
}

/** A stream that carries an answer from the upstream to the agent. */
async function live(
  relay: Relay,
  options: {
    readonly agent: FramePeer
    readonly upstream: Awaited<ReturnType<typeof startFrameUpstream>>
    readonly stream: number
    readonly peer?: FramePeer
  },
): Promise<{ readonly peer: FramePeer; readonly stream: number }> {
  const { agent, upstream } = options
  const known = options.peer?.frames.filter((one) => one.type === frameType.headers).length ?? 0
  agent.send(headersFrame(options.stream, head('GET')))
  const peer = options.peer ?? (await upstream.next())
  const heads = () => peer.frames.filter((one) => one.type === frameType.headers)
  await peer.frame(() => heads().length > known)
  const stream = heads()[known]?.stream ?? 0
  peer.send(headersFrame(stream, [[':status', '200']], { endStream: false }))
  peer.send(dataFrame(stream, 'begun'))
  await agent.frame((one) => one.stream === options.stream && one.payload.includes('begun'))
  expect(relay.exchanges.count).toBeGreaterThan(0)
  return { peer, stream }
}
