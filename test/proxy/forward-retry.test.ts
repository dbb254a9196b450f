import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { startRelay, until, type Peer, type Relay } from '../kit/relay.ts'

const get = 'GET /a HTTP/1.1\r\nHost: agent\r\n\r\n'
const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

describe('forward() on a kept connection that turns out closed', () => {
  test('sends a GET again and ends as if nothing had been', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await second(relay)
    upstream.socket.destroy()
    const next = await relay.upstreamPeer()
    await next.has('GET /a HTTP/1.1\r\n')
    next.socket.write(ok)
    await agent.has('\r\n\r\nok')
    expect(await relay.ended(2)).toEqual([
      { status: 200, end: 'complete' },
      { status: 200, end: 'complete' },
    ])
  })

  test('sends nothing again when a revocation landed in between', async () => {
    await using relay = await startRelay()
    const dialled: Socket[] = []
    const note = (message: unknown): void => {
      dialled.push((message as { readonly socket: Socket }).socket)
    }
    subscribe('net.client.socket', note)
    const { agent, upstream } = await second(relay)
    unsubscribe('net.client.socket', note)
    const ours = dialled.find(({ remotePort }) => remotePort === upstream.socket.localPort)
    // After the forwarder's own listener has decided to send again, and before it does.
    ours?.once('end', () => relay.exchanges.cutAll('task-terminated'))
    upstream.socket.destroy()
    await agent.has('"code":"task-terminated"')
    expect(await relay.ended(2)).toEqual([
      { status: 200, end: 'complete' },
      { status: 403, end: 'cut' },
    ])
    expect(relay.upstreamConnections()).toBe(1)
  })

  test('sends nothing again when the agent left in between', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await second(relay)
    agent.socket.resetAndDestroy()
    await relay.ended(2)
    upstream.socket.destroy()
    expect(relay.outcomes[1]).toEqual({ status: null, end: 'client-gone' })
    expect(relay.upstreamConnections()).toBe(1)
  })
})

describe('forward() to an upstream that does not answer', () => {
  test('refuses once its time is up, and sends nothing again', async () => {
    await using relay = await startRelay({ headersTimeoutMs: 900 })
    const { agent } = await second(relay)
    expect(await agent.has('"code":"upstream-unreachable"')).toMatch(/^HTTP\/1\.1 502 /)
    expect(relay.upstreamConnections()).toBe(1)
  })
})

/** Another agent's request, on the connection that the first left. */
async function second(relay: Relay): Promise<{ readonly agent: Peer; readonly upstream: Peer }> {
  const first = relay.agent(get)
  const upstream = await relay.upstreamPeer()
  await upstream.has('\r\n\r\n')
  upstream.socket.write(ok)
  await first.has('\r\n\r\nok')
  const agent = relay.agent(get)
  await until(() => upstream.text().split('GET /a').length === 3)
  return { agent, upstream }
}
