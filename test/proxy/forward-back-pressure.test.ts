import { describe, expect, test } from 'vitest'
import { startRelay, until, type Peer, type Relay } from '../kit/relay.ts'

const get = 'GET /a HTTP/1.1\r\nHost: agent\r\n\r\n'
const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

describe('rule 37: forward() with a slow reader', () => {
  const total = 96 * 1024 * 1024

  test('holds the upstream back while the agent does not read, and loses nothing', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(get)
    agent.socket.pause()
    const upstream = await asked(relay)
    upstream.socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`)
    const sent = sendAll(upstream)
    expect(await stalled(sent)).toBeLessThan(total / 2)
    agent.socket.resume()
    await until(() => agent.bytes() > total)
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'complete' }])
  })

  test('holds the agent back while the upstream does not read, and loses nothing', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(`POST /a HTTP/1.1\r\nHost: agent\r\nContent-Length: ${total}\r\n\r\n`)
    const sent = sendAll(agent)
    const upstream = await relay.upstreamPeer()
    upstream.socket.pause()
    expect(await stalled(sent)).toBeLessThan(total / 2)
    upstream.socket.resume()
    await until(() => upstream.bytes() > total)
    upstream.socket.write(ok)
    await agent.has('\r\n\r\nok')
  })

  /** Sends `total` bytes as fast as the socket takes them. */
  function sendAll({ socket }: Peer): () => number {
    const chunk = Buffer.alloc(65_536, 'x')
    let sent = 0
    const pump = (): void => {
      while (sent < total) {
        sent += chunk.length
        if (!socket.write(chunk)) return
      }
    }
    socket.on('drain', pump)
    pump()
    return () => sent
  }
})

async function stalled(sent: () => number): Promise<number> {
  let last = -1
  let since = performance.now()
  await until(() => {
    if (sent() !== last) since = performance.now()
    last = sent()
    return performance.now() - since > 500
  })
  return last
}

/** The upstream's next connection, once a request is on it. */
async function asked(relay: Relay): Promise<Peer> {
  const upstream = await relay.upstreamPeer()
  await upstream.has('HTTP/1.1\r\n')
  return upstream
}
