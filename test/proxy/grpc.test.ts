import { constants } from 'node:http2'
import { describe, expect, test } from 'vitest'
import { deny } from '../../policy/denial.ts'
import { denialText } from '../../proxy/denial.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { createListener } from '../../proxy/listener.ts'
import { refuseArrival } from '../../proxy/refuse-arrival.ts'
import {
  openAgent,
  startFrameUpstream,
  startHttp2Upstream,
  type Asked,
  type Http2Agent,
  type Served,
} from '../kit/http2.ts'
import { codeOf, errorCode, frameType, headersFrame, rstFrame } from '../kit/http2-frames.ts'
import { limits, startRelay, until } from '../kit/relay.ts'

const path = '/orders.v1.Orders/Watch'

/** One message as gRPC frames it: not compressed, length, bytes. */
function message(text: string): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(Buffer.byteLength(text), 1)
  return Buffer.concat([head, Buffer.from(text)])
}

/** Calls as a gRPC client does. */
function call(agent: Http2Agent, more: Readonly<Record<string, string>> = {}): Asked {
  return agent.ask(
    {
      ':method': 'POST',
      ':path': path,
      te: 'trailers',
      'content-type': 'application/grpc',
      ...more,
    },
    { endStream: false },
  )
}

function answer({ stream }: Served, messages: readonly string[], trailers: object): void {
  stream.respond(
    { ':status': 200, 'content-type': 'application/grpc' },
    { waitForTrailers: true, endStream: false },
  )
  stream.on('wantTrailers', () => stream.sendTrailers({ ...trailers }))
  for (const text of messages) stream.write(message(text))
}

describe('gRPC through forward()', () => {
  test('carries a unary call with its deadline, metadata and trailers', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const asked = call(agent, { 'grpc-timeout': '5S', 'x-meta-bin': 'AAEC' })
    asked.stream.end(message('one'))
    const served = await upstream.next()
    await served.has('one')
    expect(served.fields).toMatchObject({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      'grpc-timeout': '5S',
      'x-meta-bin': 'AAEC',
      te: 'trailers',
    })
    answer(served, ['reply'], {
      'grpc-status': '5',
      'grpc-message': 'no%20such',
      'x-last-bin': 'AA',
    })
    served.stream.end()
    expect(await asked.closed).toBe(errorCode.none)
    expect(asked.text()).toContain('reply')
    expect(asked.trailers()).toMatchObject({
      'grpc-status': '5',
      'grpc-message': 'no%20such',
      'x-last-bin': 'AA',
    })
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'complete' }])
  })

  test('streams both ways: either side speaks first, and each may end first', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const asked = call(agent)
    const served = await upstream.next()
    answer(served, ['server first'], { 'grpc-status': '0' })
    await asked.has('server first')
    for (const turn of ['a', 'b', 'c']) {
      asked.stream.write(message(`ping ${turn}`))
      await served.has(`ping ${turn}`)
      served.stream.write(message(`pong ${turn}`))
      await asked.has(`pong ${turn}`)
    }
    asked.stream.end()
    await until(() => served.stream.readableEnded)
    served.stream.write(message('after the client ended'))
    await asked.has('after the client ended')
    served.stream.end()
    expect(await asked.closed).toBe(errorCode.none)
    expect(asked.trailers()).toMatchObject({ 'grpc-status': '0' })
  })

  test('ends a call that its server ends before the client has', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const asked = call(agent)
    asked.stream.write(message('more will follow'))
    const served = await upstream.next()
    await served.has('follow')
    answer(served, [], { 'grpc-status': '3' })
    served.stream.end()
    await until(() => asked.trailers() !== undefined)
    expect(asked.trailers()).toMatchObject({ 'grpc-status': '3' })
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'complete' }])
  })

  test('passes a head that ends the stream as one', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const asked = call(agent)
    asked.stream.end(message('one'))
    const { stream } = await upstream.next()
    stream.respond({ ':status': 200, 'grpc-status': '12' }, { endStream: true })
    const { fields, endStream } = await asked.head
    expect(fields).toMatchObject({ 'grpc-status': '12' })
    expect(endStream).toBe(true)
  })

  test.each([errorCode.cancel, errorCode.enhanceYourCalm, errorCode.refusedStream])(
    'passes the code %i that the upstream resets a live call with',
    async (code) => {
      await using upstream = await startFrameUpstream()
      await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
      await using agent = openAgent(relay.port)
      const asked = call(agent)
      const peer = await upstream.next()
      const { stream } = await peer.frame((one) => one.type === frameType.headers)
      peer.send(headersFrame(stream, [[':status', '200']], { endStream: false }))
      await asked.head
      peer.send(rstFrame(stream, code))
      expect(await asked.closed).toBe(code)
      expect(asked.trailers()).toBeUndefined()
    },
  )

  test('passes a cancellation to the upstream', async () => {
    await using upstream = await startFrameUpstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const asked = call(agent)
    const peer = await upstream.next()
    await peer.frame((one) => one.type === frameType.headers)
    asked.stream.close(constants.NGHTTP2_CANCEL)
    const rst = await peer.frame((one) => one.type === frameType.rstStream)
    expect(codeOf(rst)).toBe(errorCode.cancel)
  })

  test("keeps the upstream's grpc-status 16 about our credential from the agent", async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({
      protocol: 'http2',
      upstreamUrl: upstream.url,
      hasCredential: true,
    })
    await using agent = openAgent(relay.port)
    const asked = call(agent)
    const { stream } = await upstream.next()
    stream.respond(
      { ':status': 200, 'grpc-status': '16', 'grpc-message': 'token secret' },
      { endStream: true },
    )
    const { fields } = await asked.head
    expect(fields).toMatchObject({
      'grpc-status': '7',
      'chaperone-denial': 'upstream-credential-rejected',
    })
    expect(fields['grpc-message']).not.toContain('secret')
  })
})

describe('a gRPC call that is refused', () => {
  test.each([
    ['task-terminated', '7'],
    ['task-paused', '14'],
    ['control-plane-stale', '14'],
    ['agent-quarantined', '7'],
  ] as const)(
    'when cut by %s before its head gets trailers only, grpc-status %s',
    async (code, status) => {
      await using upstream = await startHttp2Upstream()
      await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
      await using agent = openAgent(relay.port)
      const asked = call(agent)
      asked.stream.write(message('one'))
      const served = await upstream.next()
      relay.exchanges.cutAll(code)
      const { fields, endStream } = await asked.head
      expect(endStream).toBe(true)
      expect(fields).toMatchObject({
        ':status': 200,
        'content-type': 'application/grpc',
        'grpc-status': status,
        'chaperone-denial': code,
      })
      const text = decodeURIComponent(String(fields['grpc-message']))
      expect(text).toBe(`${code}: ${denialText({ code })} (decision d1)`)
      expect(await served.closed).toBe(errorCode.cancel)
    },
  )

  test('by the gate gets grpc-status 3', async () => {
    await using relay = await startRelay({ gated: true })
    await using agent = openAgent(relay.port)
    const { fields, endStream } = await call(agent, { ':path': '/a/../b' }).head
    expect(fields).toMatchObject({ 'grpc-status': '3', 'chaperone-denial': 'request-refused' })
    expect(endStream).toBe(true)
  })

  test('because its upstream does not answer gets grpc-status 14', async () => {
    await using upstream = await startFrameUpstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const asked = call(agent)
    const peer = await upstream.next()
    await peer.frame((one) => one.type === frameType.headers)
    peer.socket.destroy()
    const { fields } = await asked.head
    expect(fields).toMatchObject({
      'grpc-status': '14',
      'chaperone-denial': 'upstream-unreachable',
    })
  })

  test("percent-encodes what a field may not hold of a policy's reason", async () => {
    const denial = deny('policy-denied', 'd', { reason: 'größer als 100 %\n' })
    const context = { decisionId: 'd1', txn: undefined, message: undefined }
    await using listener = createListener({
      limits,
      clock: systemClock,
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
      handle: async (arrival) => void refuseArrival(arrival, denial, context),
    })
    await using agent = openAgent(Number(new URL(await listener.listen('127.0.0.1:0')).port))
    const { fields } = await call(agent).head
    const encoded = String(fields['grpc-message'])
    expect(encoded).toMatch(/^[ -~]+ Reason: gr%C3%B6%C3%9Fer als 100 %25%0A \(decision d1\)$/)
    expect(decodeURIComponent(encoded)).toContain(denialText(denial))
  })
})
