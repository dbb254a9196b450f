import { describe, expect, test } from 'vitest'
import { startRelay, until, type Peer, type Relay } from '../kit/relay.ts'

const get = 'GET /a HTTP/1.1\r\nHost: agent\r\n\r\n'
const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const stream =
  'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n'
const piece = '5\r\nhello\r\n'

describe('forward()', () => {
  test('passes status, reason, repeated fields and body as they came', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    expect(upstream.text()).toMatch(/^GET \/a HTTP\/1\.1\r\nhost: upstream\.example\r\n/)
    upstream.socket.write(
      'HTTP/1.1 299 Odd But Fine\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 4\r\n\r\nbody',
    )
    expect(await agent.has('\r\n\r\nbody')).toMatch(
      /^HTTP\/1\.1 299 Odd But Fine\r\nX-A: 1\r\nX-A: 2\r\n/,
    )
    expect(await relay.ended(1)).toEqual([{ status: 299, end: 'complete' }])
  })

  test.each([
    ['a HEAD', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n', 'Content-Length: 70000'],
    ['a 204', 'DELETE', 'HTTP/1.1 204 No Content\r\n\r\n', '204 No Content'],
    ['a 304', 'GET', 'HTTP/1.1 304 Not Modified\r\n\r\n', '304 Not Modified'],
    ['an empty body', 'GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', 'Content-Length: 0'],
  ])('keeps both connections when the answer is %s', async (_, method, answer, expected) => {
    await using relay = await startRelay()
    const agent = relay.agent(get.replace('GET', method))
    const upstream = await asked(relay)
    upstream.socket.write(answer)
    const head = await agent.has(expected)
    expect(head).not.toMatch(/transfer-encoding/i)
    await relay.ended(1)
    agent.socket.write(get.replace('/a', '/b'))
    await upstream.has('GET /b')
    upstream.socket.write(ok)
    await agent.has('\r\n\r\nok')
    expect(relay.upstreamConnections()).toBe(1)
  })

  test('passes a 304 with the length of what it stands for', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write('HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n')
    await agent.has('Content-Length: 5\r\n')
    expect(await relay.ended(1)).toEqual([{ status: 304, end: 'complete' }])
    agent.socket.write(get)
    const next = await asked(relay)
    next.socket.write(ok)
    await agent.has('\r\n\r\nok')
  })

  test('never sends chunks to an HTTP/1.0 agent, and ends its answer with a reset when it breaks', async () => {
    await using relay = await startRelay()
    const agent = relay.agent('GET /a HTTP/1.0\r\nHost: agent\r\n\r\n')
    const upstream = await asked(relay)
    upstream.socket.write(stream + piece)
    const text = await agent.has('hello')
    expect(text).not.toMatch(/transfer-encoding|\r\n5\r\n/i)
    upstream.socket.end()
    expect(await agent.ended).toBe('reset')
  })

  test.each([
    ['a reset', (peer: Peer) => peer.socket.resetAndDestroy()],
    ['an end', (peer: Peer) => peer.socket.end()],
    ['garbage', (peer: Peer) => peer.socket.write('zz\r\n')],
  ])('resets the agent after %s in the middle of an answer', async (_, spoil) => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write(stream + piece)
    await agent.has('hello')
    spoil(upstream)
    expect(await agent.ended).toBe('reset')
    expect(agent.text()).not.toContain('\r\n0\r\n')
    expect(await relay.ended(1)).toEqual([
      { status: 200, end: 'upstream-failed', error: expect.stringMatching(/^\w+$/) },
    ])
  })

  test.each([
    ['a reset', (peer: Peer) => peer.socket.resetAndDestroy()],
    ['an end', (peer: Peer) => peer.socket.end()],
    ['no HTTP', (peer: Peer) => peer.socket.write('SSH-2.0-x\r\n')],
  ])(
    'answers 502 after %s in place of an answer, and the agent can ask again',
    async (_, spoil) => {
      await using relay = await startRelay()
      const agent = relay.agent(get)
      const upstream = await asked(relay)
      spoil(upstream)
      await agent.has('"code":"upstream-unreachable"')
      expect(agent.text()).toMatch(/^HTTP\/1\.1 502 /)
      expect(await relay.ended(1)).toEqual([
        { status: 502, end: 'upstream-failed', error: 'upstream-unreachable' },
      ])
      agent.socket.write(get)
      const next = await asked(relay)
      next.socket.write(ok)
      await agent.has('\r\n\r\nok')
    },
  )

  test.each([401, 407])('keeps a %i about our credential from the agent', async (status) => {
    await using relay = await startRelay({ hasCredential: true })
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write(`HTTP/1.1 ${status} No\r\nContent-Length: 6\r\n\r\nsecret`)
    const text = await agent.has('"code":"upstream-credential-rejected"')
    expect(text).toMatch(/^HTTP\/1\.1 502 /)
    expect(text).not.toContain('secret')
    expect(await upstream.ended).toBeDefined()
  })

  test('passes a 401 when there was no credential of ours', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write('HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno')
    expect(await agent.has('\r\n\r\nno')).toMatch(/^HTTP\/1\.1 401 /)
  })
})

describe('forward() when the agent leaves', () => {
  const upload = 'POST /a HTTP/1.1\r\nHost: agent\r\nContent-Length: 100\r\n\r\npart'

  test.each([
    ['while the head is awaited', get, ''],
    ['in the middle of the answer', get, stream + piece],
    ['in the middle of its upload', upload, ''],
  ])('aborts the upstream %s', async (_, request, answer) => {
    await using relay = await startRelay()
    const agent = relay.agent(request)
    const upstream = await asked(relay)
    upstream.socket.write(answer)
    if (answer !== '') await agent.has('hello')
    agent.socket.resetAndDestroy()
    expect(await upstream.ended).toBeDefined()
    const status = answer === '' ? null : 200
    expect(await relay.ended(1)).toEqual([{ status, end: 'client-gone' }])
    expect(relay.exchanges.count).toBe(0)
  })

  test.each([get.replace('/a', '/queued'), upload.replace('/a', '/queued')])(
    'sends nothing of a request that waited for a connection: %j',
    async (request) => {
      await using relay = await startRelay({ maxConnections: 1 })
      relay.agent(get)
      const upstream = await asked(relay)
      const agent = relay.agent(request)
      await until(() => relay.exchanges.count === 2)
      agent.socket.resetAndDestroy()
      expect(await relay.ended(1)).toEqual([{ status: null, end: 'client-gone' }])
      upstream.socket.write(ok)
      await relay.ended(2)
      const third = relay.agent(get.replace('/a', '/third'))
      await upstream.has('/third')
      upstream.socket.write(ok)
      await third.has('\r\n\r\nok')
      expect(upstream.text()).not.toContain('/queued')
    },
  )

  test('ends at once, and sends nothing, when it left before', async () => {
    const left = Promise.withResolvers<void>()
    await using relay = await startRelay({ before: () => left.promise })
    const agent = relay.agent(get)
    await until(() => relay.exchanges.count === 1)
    agent.socket.resetAndDestroy()
    await agent.ended
    // The sidecar's side of the reset is an event of its own.
    setTimeout(() => left.resolve(), 100)
    expect(await relay.ended(1)).toEqual([{ status: null, end: 'client-gone' }])
    expect(relay.upstreamConnections()).toBe(0)
  })

  test('calls a silence in its upload by name', async () => {
    await using relay = await startRelay({ bodyGapTimeoutMs: 50 })
    const agent = relay.agent(upload)
    const upstream = await asked(relay)
    expect(await agent.ended).toBeDefined()
    expect(await upstream.ended).toBeDefined()
    expect(await relay.ended(1)).toEqual([
      { status: null, end: 'client-gone', error: 'ERR_BODY_GAP' },
    ])
  })
})

describe('forward() with an early answer to an upload', () => {
  const early = 'HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig'

  test.each([
    ['a length', 'Content-Length: 39', 'part', 'GET /evil HTTP/1.1\r\nHost: agent\r\n\r\n'],
    ['chunks', 'Transfer-Encoding: chunked', '4\r\npart\r\n', '7\r\nGET /ev\r\n0\r\n\r\n'],
  ])('passes it and takes the rest, by %s, for no request', async (_, field, first, rest) => {
    await using relay = await startRelay()
    const agent = relay.agent(`POST /a HTTP/1.1\r\nHost: agent\r\n${field}\r\n\r\n${first}`)
    const upstream = await asked(relay)
    await upstream.has('part')
    upstream.socket.write(early)
    await agent.has('\r\n\r\nbig')
    expect(await relay.ended(1)).toEqual([{ status: 413, end: 'complete' }])
    agent.socket.write(rest)
    agent.socket.write(get.replace('/a', '/next'))
    const next = await asked(relay)
    expect(next.text()).toMatch(/^GET \/next HTTP/)
    next.socket.write(ok)
    await agent.has('\r\n\r\nok')
    expect(relay.outcomes).toHaveLength(2)
  })

  test('takes a long rest, piece by piece, for no request', async () => {
    await using relay = await startRelay()
    const rest = get.replace('/a', '/evil').repeat(20_000)
    const head = `POST /a HTTP/1.1\r\nHost: agent\r\nContent-Length: ${rest.length + 4}\r\n\r\n`
    const agent = relay.agent(`${head}part`)
    const upstream = await asked(relay)
    await upstream.has('part')
    upstream.socket.write(early)
    await agent.has('\r\n\r\nbig')
    const step = Math.ceil(rest.length / 5)
    for (let at = 0; at < rest.length; at += step) {
      agent.socket.write(rest.slice(at, at + step))
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    agent.socket.write(get.replace('/a', '/next'))
    const next = await asked(relay)
    expect(next.text()).toMatch(/^GET \/next HTTP/)
    next.socket.write(ok)
    await agent.has('\r\n\r\nok')
    expect(relay.outcomes[0]).toEqual({ status: 413, end: 'complete' })
  })

  test('passes it while the agent sends at full speed', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(
      'POST /a HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: chunked\r\n\r\n',
    )
    const chunk = Buffer.from(`10000\r\n${'u'.repeat(65_536)}\r\n`)
    const pump = (): void => {
      while (!agent.socket.destroyed && agent.socket.write(chunk));
    }
    agent.socket.on('drain', pump)
    pump()
    const upstream = await asked(relay)
    upstream.socket.write(early)
    await agent.has('\r\n\r\nbig')
    expect(await relay.ended(1)).toEqual([{ status: 413, end: 'complete' }])
    // The rest is never taken for a request: the connection ends when it does not.
    expect(await agent.ended).toBeDefined()
    expect(relay.outcomes).toHaveLength(1)
  })

  test('closes a connection whose rest does not come', async () => {
    await using relay = await startRelay()
    const agent = relay.agent('POST /a HTTP/1.1\r\nHost: agent\r\nContent-Length: 9\r\n\r\npart')
    const upstream = await asked(relay)
    upstream.socket.write(early)
    await agent.has('\r\n\r\nbig')
    expect(await agent.ended).toBeDefined()
  })
})

/** The upstream's next connection, once a request is on it. */
async function asked(relay: Relay): Promise<Peer> {
  const upstream = await relay.upstreamPeer()
  await upstream.has('HTTP/1.1\r\n')
  return upstream
}
