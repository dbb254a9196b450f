import { connect } from 'node:net'
import { describe, expect, test } from 'vitest'
import { openAgent, startHttp2Upstream } from '../kit/http2.ts'
import { startRelay, until, watch } from '../kit/relay.ts'

const get = 'GET /a HTTP/1.1\r\nHost: agent\r\n\r\n'
const post = 'POST /a HTTP/1.1\r\nHost: agent\r\nContent-Length: 10\r\n\r\n'

describe('The rules of the wire that one exchange of bytes does not show', () => {
  test('rule 31: the head reaches an HTTP/2 upstream before the first byte of the body', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    const agent = relay.agent(post)
    const served = await upstream.next()
    expect(served.fields[':path']).toBe('/a')
    expect(served.text()).toBe('')
    agent.socket.write('0123456789')
    await served.has('0123456789')
  })

  test('rule 31: the head reaches an HTTP/1 upstream before the first byte of the body', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(post)
    const upstream = await relay.upstreamPeer()
    expect(await upstream.has('\r\n\r\n')).toContain('POST /a')
    agent.socket.write('0')
    await upstream.has('\r\n\r\n0')
  })

  test('rule 32: an answer that comes while an HTTP/2 body is under way arrives whole, with its trailers', async () => {
    await using relay = await startRelay()
    await using agent = openAgent(relay.port)
    const asked = agent.ask({ ':method': 'POST', te: 'trailers' }, { endStream: false })
    asked.stream.write('first')
    const upstream = await relay.upstreamPeer()
    await upstream.has('first')
    upstream.socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n')
    await asked.has('part')
    asked.stream.end('last')
    await upstream.has('last\r\n0\r\n\r\n')
    upstream.socket.write('2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n')
    expect(await asked.closed).toBe(0)
    expect(asked.text()).toBe('partok')
    expect(asked.trailers()).toMatchObject({ 'x-sum': '7' })
  })

  test('rule 36: a head that drips gets 408, whatever it drips', async () => {
    await using relay = await startRelay({ limits: { headTimeout: 1_000 } })
    const agent = relay.agent('GET /a HTTP/1.1\r\nHost: agent\r\nX-A: ')
    const drip = setInterval(() => agent.socket.write('a'), 100)
    await agent.ended
    clearInterval(drip)
    expect(agent.text()).toMatch(/^HTTP\/1\.1 408 /)
    expect(relay.upstreamConnections()).toBe(0)
  })

  test('rule 36: a body that goes silent is reset on both sides', async () => {
    await using relay = await startRelay({ bodyGapTimeoutMs: 200 })
    const agent = relay.agent(`${post}01234`)
    const upstream = await relay.upstreamPeer()
    await upstream.has('01234')
    expect(await agent.ended).toBe('reset')
    await upstream.ended
    expect(await relay.ended(1)).toEqual([
      { status: null, end: 'client-gone', error: 'ERR_BODY_GAP' },
    ])
  })

  test('rule 36: a body that goes silent under its answer resets that, also for HTTP/1.0', async () => {
    await using relay = await startRelay({ bodyGapTimeoutMs: 500 })
    const agent = relay.agent(`${post.replace('1.1', '1.0')}01234`)
    const upstream = await relay.upstreamPeer()
    await upstream.has('01234')
    upstream.socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n')
    await agent.has('part')
    expect(await agent.ended).toBe('reset')
  })

  test('rule 36: connections above the limit are closed, and one that ends makes room', async () => {
    await using relay = await startRelay({ limits: { maxConnections: 4 } })
    const held = Array.from({ length: 4 }, () => relay.agent(get))
    for (const _ of held) await relay.upstreamPeer()
    const late = relay.agent(get)
    await late.ended
    expect(late.text()).toBe('')
    held[0]?.socket.destroy()
    await relay.ended(1)
    let served = false
    await until(() => {
      const next = watch(connect(relay.port, '127.0.0.1'))
      next.socket.write(get)
      served ||= relay.exchanges.count > 3
      return served
    })
    expect(relay.upstreamConnections()).toBeGreaterThan(3)
  })
})
