import { createHash } from 'node:crypto'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { checkHandshake } from '../../proxy/upgrade.ts'
import { startRelay, until, type Peer, type Relay } from '../kit/relay.ts'

const key = Buffer.from('0123456789abcdef').toString('base64')
const accept = createHash('sha1')
  .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
  .digest('base64')
const handshake = `GET /ws HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`
const switching = (proof: string): string =>
  `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${proof}\r\n\r\n`
/** A whole text frame, and one whose payload is not whole. */
const frame = '\x81\x05hello'
const halfFrame = '\x81\x05he'
const closeFrame = '\x88\x11\x03\xf0task-terminated'

describe('checkHandshake()', () => {
  const valid = {
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': key,
  }

  test('takes a handshake of RFC 6455', () => {
    expect(check(valid)).toBeUndefined()
    expect(check({ ...valid, upgrade: 'WebSocket', 'content-length': '0' })).toBeUndefined()
  })

  test.each([
    ['another method', {}, 'POST', 'the method is not GET'],
    ['another protocol', { upgrade: 'h2c' }, 'GET', 'not to websocket'],
    ['another version', { 'sec-websocket-version': '8' }, 'GET', 'the version is not 13'],
    ['a short key', { 'sec-websocket-key': 'AAAA' }, 'GET', 'the key is not 16 bytes'],
    ['a key of 17 bytes', { 'sec-websocket-key': `${'A'.repeat(23)}=` }, 'GET', 'the key is not'],
    ['a body', { 'content-length': '1' }, 'GET', 'it has a body'],
    ['chunks', { 'transfer-encoding': 'chunked' }, 'GET', 'it has a body'],
  ])('refuses %s', (_, headers, method, detail) => {
    expect(check({ ...valid, ...headers }, method)).toMatchObject({
      code: 'request-refused',
      detail: expect.stringContaining(detail),
    })
  })
})

describe('upgrade()', () => {
  test('joins both sides, with what was sent right behind each handshake', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(`${handshake}early`)
    const upstream = await asked(relay)
    upstream.socket.write(switching(accept) + frame, 'latin1')
    await agent.has(frame)
    await upstream.has('\r\n\r\nearly')
    agent.socket.write('up')
    await upstream.has('earlyup')
    expect(agent.text()).toMatch(/^HTTP\/1\.1 101 /)
    expect(relay.outcomes).toEqual([])
  })

  test('sends on what the agent sent before the switch', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(handshake)
    const upstream = await asked(relay)
    agent.socket.write('one')
    await settle()
    agent.socket.write('two')
    await settle()
    expect(upstream.text()).not.toContain('\r\n\r\none')
    upstream.socket.write(switching(accept))
    await upstream.has('\r\n\r\nonetwo')
    agent.socket.write('three')
    await upstream.has('onetwothree')
  })

  test.each([
    ['a wrong accept', switching(accept.replace(/^./, '!')), 'upstream-unreachable'],
    ['no accept', switching('').replace(/Sec-.*\r\n/, ''), 'upstream-unreachable'],
    ['a 401', 'HTTP/1.1 401 No\r\nContent-Length: 6\r\n\r\nsecret', 'upstream-credential-rejected'],
    ['no HTTP', 'SSH-2.0-x\r\n', 'upstream-unreachable'],
  ])('refuses when the upstream answers with %s', async (_, answer, code) => {
    await using relay = await startRelay()
    const agent = relay.agent(handshake)
    const upstream = await asked(relay)
    upstream.socket.write(answer)
    const text = await agent.has(`"code":"${code}"`)
    expect(text).toMatch(/^HTTP\/1\.1 502 /)
    expect(text).not.toContain('secret')
    expect(await agent.ended).toBe('fin')
    expect(await upstream.ended).toBeDefined()
    expect(await relay.ended(1)).toEqual([{ status: null, end: 'upstream-failed', error: code }])
  })

  test('passes an answer that is no switch, whole and with a length, and ends with it', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(handshake)
    const upstream = await asked(relay)
    upstream.socket.write(
      'HTTP/1.1 404 Gone Away\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nAlt-Svc: h3\r\n\r\n2\r\nno\r\n',
    )
    await until(() => relay.answerHeads() === 1)
    expect(agent.text()).toBe('')
    upstream.socket.write('0\r\n\r\n')
    expect(await agent.ended).toBe('fin')
    expect(agent.text()).toBe(
      'HTTP/1.1 404 Gone Away\r\nX-A: 1\r\nvia: 1.1 chaperone\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno',
    )
    expect(await relay.ended(1)).toEqual([{ status: 404, end: 'complete' }])
  })

  test('gives an answer that is no switch one length', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(handshake)
    const upstream = await asked(relay)
    upstream.socket.write('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno')
    expect(await agent.ended).toBe('fin')
    expect(agent.text()).toBe(
      'HTTP/1.1 403 No\r\nvia: 1.1 chaperone\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno',
    )
  })

  test.each([
    ['too large', `HTTP/1.1 404 No\r\nContent-Length: 70000\r\n\r\n${'x'.repeat(70_000)}`],
    ['broken off', 'HTTP/1.1 404 No\r\nContent-Length: 7\r\n\r\nxxx'],
    ['framed twice', 'HTTP/1.1 404 No\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nxxx'],
  ])('refuses when an answer that is no switch is %s', async (_, answer) => {
    await using relay = await startRelay()
    const agent = relay.agent(handshake)
    const upstream = await asked(relay)
    upstream.socket.end(answer)
    expect(await agent.has('"code":"upstream-unreachable"')).toMatch(/^HTTP\/1\.1 502 /)
    expect(agent.text()).not.toContain('xxx')
    expect(await relay.ended(1)).toEqual([
      { status: null, end: 'upstream-failed', error: 'upstream-unreachable' },
    ])
  })

  test.each([
    ['an end', (peer: Peer) => peer.socket.end()],
    ['a reset', (peer: Peer) => peer.socket.resetAndDestroy()],
  ])('leaves the upstream after %s of the agent before the switch', async (_, leave) => {
    await using relay = await startRelay()
    const agent = relay.agent(handshake)
    const upstream = await asked(relay)
    leave(agent)
    expect(await upstream.ended).toBeDefined()
    expect(await relay.ended(1)).toEqual([{ status: null, end: 'client-gone' }])
  })

  test('ends at once, and asks nobody, when the agent left before', async () => {
    const judged = Promise.withResolvers<void>()
    await using relay = await startRelay({ before: () => judged.promise })
    const agent = relay.agent(handshake)
    await until(() => relay.exchanges.count === 1)
    agent.socket.resetAndDestroy()
    await until(() => relay.agentSidesClosed() === 1)
    judged.resolve()
    expect(await relay.ended(1)).toEqual([{ status: null, end: 'client-gone' }])
    expect(relay.upstreamConnections()).toBe(0)
  })

  test.each(['agent', 'upstream'])(
    'hands on the last bytes and the end of the %s',
    async (side) => {
      await using relay = await startRelay()
      const { agent, upstream } = await joined(relay)
      const [first, second] = side === 'agent' ? [agent, upstream] : [upstream, agent]
      first.socket.end(frame, 'latin1')
      expect(await second.ended).toBe('fin')
      expect(second.text()).toContain(frame)
      second.socket.end()
      expect(await relay.ended(1)).toEqual([{ status: 101, end: 'complete' }])
      expect(relay.exchanges.count).toBe(0)
    },
  )

  test('leaves the upstream when the agent resets', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await joined(relay)
    agent.socket.resetAndDestroy()
    expect(await upstream.ended).toBeDefined()
    expect(await relay.ended(1)).toEqual([{ status: 101, end: 'client-gone' }])
  })

  test('resets the agent when the upstream resets', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await joined(relay)
    upstream.socket.resetAndDestroy()
    expect(await agent.ended).toBe('reset')
    expect(await relay.ended(1)).toEqual([
      { status: 101, end: 'upstream-failed', error: expect.any(String) },
    ])
  })

  test('holds each side back while the other does not read', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await joined(relay)
    const total = 64 * 1024 * 1024
    for (const [from, to] of [
      [agent, upstream],
      [upstream, agent],
    ] as const) {
      to.socket.pause()
      const before = from.socket.bytesWritten
      const already = to.bytes()
      from.socket.write(Buffer.alloc(total, 'x'))
      await settle()
      expect(from.socket.writableLength).toBeGreaterThan(0)
      to.socket.resume()
      await until(() => to.bytes() - already >= total)
      expect(from.socket.bytesWritten - before).toBe(total)
    }
  })
})

describe('upgrade() when its exchange is cut', () => {
  test('refuses before the switch', async () => {
    await using relay = await startRelay()
    const agent = relay.agent(handshake)
    const upstream = await asked(relay)
    relay.exchanges.cutAll('task-terminated')
    expect(await agent.has('"code":"task-terminated"')).toMatch(/^HTTP\/1\.1 403 /)
    expect(await agent.ended).toBe('fin')
    expect(await upstream.ended).toBeDefined()
    expect(await relay.ended(1)).toEqual([{ status: null, end: 'cut' }])
  })

  test('closes with 1008 between two frames', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await joined(relay)
    upstream.socket.write(frame, 'latin1')
    await agent.has(frame)
    relay.exchanges.cutAll('task-terminated')
    upstream.socket.write('\x81\x05later', 'latin1')
    agent.socket.write('late')
    await agent.has(frame + closeFrame)
    await agent.ended
    expect(await upstream.ended).toBeDefined()
    expect(agent.text().endsWith(closeFrame)).toBe(true)
    expect(upstream.text()).not.toContain('late')
    expect(await relay.ended(1)).toEqual([{ status: 101, end: 'cut' }])
  })

  test('tells the upstream with a masked 1008 between two frames of the agent', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await joined(relay)
    agent.socket.write('\x81\x82mask\x05\x08', 'latin1')
    const before = await upstream.has('mask\x05\x08')
    relay.exchanges.cutAll('task-terminated')
    expect(await upstream.ended).toBe('fin')
    const frames = Buffer.from(upstream.text().slice(before.length), 'latin1')
    expect([...frames.subarray(0, 2)]).toEqual([0x88, 0x80 | 17])
    const payload = frames.subarray(6).map((byte, index) => byte ^ (frames[2 + (index % 4)] ?? 0))
    expect(payload).toEqual(Buffer.from('\x03\xf0task-terminated', 'latin1'))
  })

  test('tells the upstream nothing within a frame of the agent', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await joined(relay)
    agent.socket.write('\x81\x82mask\x05', 'latin1')
    const before = await upstream.has('mask\x05')
    relay.exchanges.cutAll('task-terminated')
    await upstream.ended
    expect(upstream.text()).toBe(before)
  })

  test('resets within a frame: a close frame there would be payload', async () => {
    await using relay = await startRelay()
    const { agent, upstream } = await joined(relay)
    upstream.socket.write(halfFrame, 'latin1')
    await agent.has(halfFrame)
    relay.exchanges.cutAll('task-terminated')
    expect(await agent.ended).toBe('reset')
    expect(agent.text().endsWith(halfFrame)).toBe(true)
    expect(await relay.ended(1)).toEqual([{ status: 101, end: 'cut' }])
  })
})

async function joined(relay: Relay): Promise<{ readonly agent: Peer; readonly upstream: Peer }> {
  const agent = relay.agent(handshake)
  const upstream = await asked(relay)
  upstream.socket.write(switching(accept))
  await agent.has('\r\n\r\n')
  return { agent, upstream }
}

async function asked(relay: Relay): Promise<Peer> {
  const upstream = await relay.upstreamPeer()
  await upstream.has('\r\n\r\n')
  return upstream
}

function check(headers: Readonly<Record<string, string>>, method = 'GET') {
  return checkHandshake(Object.assign(new IncomingMessage(new Socket()), { method, headers }))
}

/** Lets what was written arrive: nothing visible tells that it did. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 200))
}
