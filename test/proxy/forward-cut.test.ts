import { describe, expect, test } from 'vitest'
import { ResponseFilterError, type ResponseFilter } from '../../proxy/response-filter.ts'
import { startRelay, until, type Peer, type Relay } from '../kit/relay.ts'

const get = 'GET /a HTTP/1.1\r\nHost: agent\r\n\r\n'
const chunkedHead =
  'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n'
const piece = '5\r\nhello\r\n'
const refused = '"code":"task-terminated"'

describe('forward() when its exchange is cut', () => {
  test('refuses when no head was sent, and aborts the upstream', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    expect(relay.exchanges.cutAll('task-terminated')).toBe(1)
    const text = await agent.has(refused)
    expect(text).toMatch(/^HTTP\/1\.1 403 /)
    expect(await upstream.ended).toBeDefined()
    expect(await relay.ended(1)).toEqual([{ status: 403, end: 'cut' }])
  })

  test('refuses when the head came and was held back for a small body', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write('HTTP/1.1 200 OK\r\nX-Secret: yes\r\nContent-Length: 9\r\n\r\n')
    await until(() => relay.answerHeads() === 1)
    relay.exchanges.cutAll('task-terminated')
    const text = await agent.has(refused)
    expect(text).not.toContain('X-Secret')
    expect(await relay.ended(1)).toEqual([{ status: 403, end: 'cut' }])
  })

  test('resets the agent in the middle of an answer, and not one byte follows', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write(chunkedHead + piece)
    await agent.has('hello')
    relay.exchanges.cutAll('task-terminated')
    upstream.socket.write('5\r\nlater\r\n0\r\n\r\n')
    expect(await agent.ended).toBe('reset')
    expect(await upstream.ended).toBeDefined()
    expect(agent.text()).not.toMatch(/later|\r\n0\r\n/)
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'cut' }])
    expect(relay.exchanges.count).toBe(0)
  })

  test('drops what waits for an agent that does not read', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    agent.socket.pause()
    const upstream = await asked(relay)
    const total = 64 * 1024 * 1024
    upstream.socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`)
    upstream.socket.write(Buffer.alloc(total, 'x'))
    await settle()
    relay.exchanges.cutAll('task-terminated')
    agent.socket.resume()
    expect(await agent.ended).toBe('reset')
    expect(agent.bytes()).toBeLessThan(total / 2)
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'cut' }])
  })

  test.each([
    ['with a length', 'Content-Length: 1000', 'part', 'later'],
    ['in chunks', 'Transfer-Encoding: chunked', '4\r\npart\r\n', '5\r\nlater\r\n'],
  ])(
    'refuses in the middle of an upload %s, and not one byte follows',
    async (_, field, first, later) => {
      await using relay = await startRelay()
      const agent = relay.agent(`POST /a HTTP/1.1\r\nHost: agent\r\n${field}\r\n\r\n${first}`)
      const upstream = await asked(relay)
      await upstream.has('part')
      relay.exchanges.cutAll('task-terminated')
      agent.socket.write(later)
      await agent.has(refused)
      expect(await upstream.ended).toBeDefined()
      expect(upstream.text()).not.toContain('later')
      expect(await relay.ended(1)).toEqual([{ status: 403, end: 'cut' }])
    },
  )

  test('refuses what was cut before it was forwarded, and asks nobody', async () => {
    const judged = Promise.withResolvers<void>()
    await using relay = await startRelay({ before: () => judged.promise })
    const agent = relay.agent(get)
    await until(() => relay.exchanges.count === 1)
    relay.exchanges.cutAll('task-terminated')
    judged.resolve()
    await agent.has(refused)
    expect(await relay.ended(1)).toEqual([{ status: 403, end: 'cut' }])
    expect(relay.upstreamConnections()).toBe(0)
  })

  test('ends at once when it was cut and the agent has left', async () => {
    const judged = Promise.withResolvers<void>()
    await using relay = await startRelay({ before: () => judged.promise })
    const agent = relay.agent(get)
    await until(() => relay.exchanges.count === 1)
    relay.exchanges.cutAll('task-terminated')
    agent.socket.resetAndDestroy()
    await until(() => relay.agentSidesClosed() === 1)
    judged.resolve()
    expect(await relay.ended(1)).toEqual([{ status: null, end: 'cut' }])
  })

  test('cuts a request that waits for a connection, and never sends it', async () => {
    await using relay = await startRelay({ maxConnections: 1 })
    relay.agent(get)
    const upstream = await asked(relay)
    const agent = relay.agent(get.replace('/a', '/queued'))
    await until(() => relay.exchanges.count === 2)
    relay.exchanges.cutAll('task-terminated')
    await agent.has(refused)
    await relay.ended(2)
    expect(upstream.text()).not.toContain('/queued')
  })
})

describe('forward() with a response filter', () => {
  test('ends a cut stream with its final message, and with no end of the answer', async () => {
    await using relay = await startRelay({ filter: filter() })
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write(chunkedHead + piece)
    await agent.has('hello')
    relay.exchanges.cutAll('task-terminated')
    upstream.socket.write('5\r\nlater\r\n0\r\n\r\n')
    const text = await agent.has('final:task-terminated')
    await agent.ended
    expect(text).not.toMatch(/later/)
    expect(agent.text()).not.toContain('\r\n0\r\n\r\n')
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'cut' }])
  })

  test('resets a cut stream at once when the agent does not read', async () => {
    await using relay = await startRelay({ filter: filter() })
    const agent = relay.agent(get)
    agent.socket.pause()
    const upstream = await asked(relay)
    upstream.socket.write(`${chunkedHead}40000000\r\n`)
    await fillUp(upstream)
    relay.exchanges.cutAll('task-terminated')
    agent.socket.resume()
    expect(await agent.ended).toBe('reset')
    expect(agent.text()).not.toContain('final:')
  })

  test('sends what it rewrites without the length of before', async () => {
    await using relay = await startRelay({
      filter: filter({ chunk: () => Buffer.from('rewritten') }),
    })
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    const text = await agent.has('rewritten')
    expect(text).not.toMatch(/content-length/i)
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'complete' }])
  })

  test('refuses an encoded answer: nobody can look into it', async () => {
    await using relay = await startRelay({ filter: filter() })
    const agent = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write('HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nxx')
    await agent.has('"code":"upstream-unreachable"')
    expect(await relay.ended(1)).toMatchObject([{ status: 502, end: 'upstream-failed' }])
  })

  test('refuses when it fails before the head, and resets when it fails after', async () => {
    let fails = true
    const chunk = (bytes: Buffer): Buffer => {
      if (fails) throw new ResponseFilterError('too long')
      return bytes
    }
    await using relay = await startRelay({ filter: filter({ chunk }) })
    const early = relay.agent(get)
    const upstream = await asked(relay)
    upstream.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    await early.has('"code":"upstream-unreachable"')
    fails = false
    const late = relay.agent(get)
    const next = await asked(relay)
    next.socket.write(chunkedHead + piece)
    await late.has('hello')
    fails = true
    next.socket.write(piece)
    expect(await late.ended).toBe('reset')
    expect(await next.ended).toBeDefined()
    expect(await relay.ended(2)).toEqual([
      { status: 502, end: 'upstream-failed', error: 'upstream-unreachable' },
      { status: 200, end: 'upstream-failed', error: 'ERR_RESPONSE_FILTER' },
    ])
  })
})

function filter(more: Partial<ResponseFilter> = {}): ResponseFilter {
  return {
    head: () => 'rewrite',
    chunk: (chunk) => chunk,
    end: () => undefined,
    final: ({ code }) => Buffer.from(`final:${code}`),
    ...more,
  }
}

/** Lets what was written arrive: nothing visible tells that it did. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 200))
}

async function asked(relay: Relay): Promise<Peer> {
  const upstream = await relay.upstreamPeer()
  await upstream.has('HTTP/1.1\r\n')
  return upstream
}

/** Writes as fast as it drains, until nothing has drained for a while: everything on the way is full. */
async function fillUp({ socket }: Peer): Promise<void> {
  const block = Buffer.alloc(65_536, 'x')
  let drainedAt = 0
  const pump = (): void => {
    drainedAt = performance.now()
    while (socket.write(block));
  }
  socket.on('drain', pump)
  pump()
  await until(() => performance.now() - drainedAt > 500)
  socket.off('drain', pump)
}
