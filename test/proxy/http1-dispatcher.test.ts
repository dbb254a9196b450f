import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import type { Dispatcher } from 'undici'
// oxlint-disable-next-line import/no-unassigned-import -- adds `request()` to what dispatches
import 'undici'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Http1Dispatcher } from '../../proxy/http1-dispatcher.ts'
import { startRawUpstream, type Peer } from '../kit/relay.ts'
import { localhostCertFile, startTlsServer } from '../kit/tls.ts'

type RawUpstream = Awaited<ReturnType<typeof startRawUpstream>>

let upstream: RawUpstream
let dispatcher: Http1Dispatcher
beforeEach(async () => {
  upstream = await startRawUpstream()
  dispatcher = open()
})
afterEach(async () => {
  await dispatcher.destroy()
  await upstream.close()
})

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

describe('Http1Dispatcher', () => {
  test('sends the next request on the connection of the last', async () => {
    const peer = await first(ok)
    const second = ask({ path: '/b' })
    await peer.has('GET /b')
    peer.socket.write(ok.replace('ok', 'no'))
    expect(await second).toBe('no')
    expect(upstream.count()).toBe(1)
  })

  test.each([
    ['bytes behind an answer', `${ok}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`],
    ['a byte behind an answer', `${ok}\n`],
    ['Connection: close', ok.replace('\r\n', '\r\nConnection: close\r\n')],
    ['an upstream that waits two seconds', ok.replace('\r\n', '\r\nKeep-Alive: timeout=2\r\n')],
    ['HTTP/1.0', ok.replace('1.1', '1.0')],
  ])('closes a connection after %s', async (_, answer) => {
    const peer = await first(answer)
    const second = ask({ path: '/b' })
    const next = await upstream.next()
    next.socket.write(ok.replace('ok', 'no'))
    expect(await second).toBe('no')
    expect(await peer.ended).toBeDefined()
    expect(peer.text()).not.toContain('/b')
  })

  test('closes a connection on which something comes that nobody asked for', async () => {
    // It would be kept for longer than this test waits.
    const peer = await first(ok.replace('\r\n', '\r\nKeep-Alive: timeout=60\r\n'))
    peer.socket.write(ok.replace('ok', 'ev'))
    expect(await peer.ended).toBeDefined()
  })

  test('takes nothing for an answer that was there before the request was sent', async () => {
    const peer = await first(ok)
    // From here on the loop reads what has come before it sends what waits.
    await setTimeout(1)
    peer.socket.write(ok.replace('ok', 'ev'))
    const second = ask({ path: '/b', method: 'POST', body: Buffer.from('once') })
    const next = await upstream.next()
    await next.has('once')
    next.socket.write(ok.replace('ok', 'no'))
    expect(await second).toBe('no')
    expect(peer.text()).not.toContain('/b')
  })

  test('closes a connection that nobody uses before the upstream does', async () => {
    const peer = await first(ok.replace('\r\n', '\r\nKeep-Alive: timeout=3\r\n'))
    expect(await peer.ended).toBeDefined()
  })

  test('lets requests wait while every connection is taken, in their order', async () => {
    await dispatcher.destroy()
    dispatcher = open({ maxConnections: 1 })
    const asked = ['/a', '/b', '/c'].map((path) => ask({ path }))
    const peer = await upstream.next()
    for (const path of ['/a', '/b', '/c']) {
      await peer.has(`GET ${path} `)
      expect(peer.text().endsWith('\r\n\r\n')).toBe(true)
      peer.socket.write(ok)
    }
    expect(await Promise.all(asked)).toEqual(['ok', 'ok', 'ok'])
    expect(upstream.count()).toBe(1)
  })

  test.each([
    ['the end of a line in a value', { headers: ['x', 'a\r\nb: c'] }],
    ['what Latin-1 makes the end of a line', { headers: ['x', 'a\u010d\u010ab: c'] }],
    ['a space in a name', { headers: ['x y', 'a'] }],
    ['a space in the target', { path: '/a b' }],
    ['a method of two words', { method: 'GET /b' as 'GET' }],
  ])('refuses to send %s', async (_, request) => {
    await expect(ask({ path: '/a', ...request })).rejects.toMatchObject({
      code: 'ERR_UPSTREAM_REQUEST',
    })
    const peer = await upstream.next()
    await peer.ended
    expect(peer.bytes()).toBe(0)
  })

  test.each([
    ['longer', ' and more'],
    ['shorter', null],
  ])('ends the connection when a body is %s than its length', async (_, rest) => {
    const body = new Readable({ read: () => undefined })
    const asked = ask({ path: '/a', method: 'POST', headers: ['content-length', '6'], body })
    const ended = Promise.allSettled([asked])
    body.push('four')
    const peer = await upstream.next()
    await peer.has('four')
    body.push(rest)
    expect(await ended).toMatchObject([{ reason: { code: 'ERR_UPSTREAM_REQUEST' } }])
    await peer.ended
    expect(peer.text()).not.toContain(' and')
  })

  test('sends the head before the first piece of a body that takes its time', async () => {
    const body = new Readable({ read: () => undefined })
    const asked = ask({ path: '/a', method: 'POST', body })
    const peer = await upstream.next()
    await peer.has('transfer-encoding: chunked\r\n\r\n')
    body.push('hello')
    body.push(null)
    await peer.has('5\r\nhello\r\n0\r\n\r\n')
    peer.socket.write(ok)
    expect(await asked).toBe('ok')
  })

  test('speaks HTTP/1.1 over TLS with the authority of its configuration, and with no other', async () => {
    await using server = await startTlsServer((_, res) => res.end('ok'))
    await dispatcher.destroy()
    dispatcher = open({ url: server.url })
    await expect(ask({ path: '/a' })).rejects.toMatchObject({ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
    await dispatcher.destroy()
    dispatcher = open({ url: server.url, ca: readFileSync(localhostCertFile, 'utf8') })
    expect(await ask({ path: '/a' })).toBe('ok')
    expect(await ask({ path: '/a' })).toBe('ok')
  })

  test('close() lets what waits and what is in flight end, and takes nothing more', async () => {
    await dispatcher.destroy()
    dispatcher = open({ maxConnections: 1 })
    const asked = [ask({ path: '/a' }), ask({ path: '/b' })]
    const peer = await upstream.next()
    const closed = dispatcher.close()
    await expect(ask({ path: '/c' })).rejects.toMatchObject({ code: 'ERR_UPSTREAM_CLOSED' })
    await peer.has('/a')
    peer.socket.write(ok)
    await peer.has('/b')
    peer.socket.write(ok)
    expect(await Promise.all(asked)).toEqual(['ok', 'ok'])
    await closed
    expect(await peer.ended).toBeDefined()
  })

  test('destroy() ends what waits and what is in flight', async () => {
    await dispatcher.destroy()
    dispatcher = open({ maxConnections: 1 })
    const asked = [ask({ path: '/a' }), ask({ path: '/b' })]
    const ends = Promise.allSettled(asked)
    const peer = await upstream.next()
    await peer.has('/a')
    await dispatcher.destroy()
    const closed = { status: 'rejected', reason: { code: 'ERR_UPSTREAM_CLOSED' } }
    expect(await ends).toMatchObject([closed, closed])
    expect(peer.text()).not.toContain('/b')
  })
})

function open({
  maxConnections = 4,
  url = upstream.url,
  ca,
}: {
  readonly maxConnections?: number
  readonly url?: string
  readonly ca?: string
} = {}): Http1Dispatcher {
  return new Http1Dispatcher(new URL(url), {
    config: { connectTimeout: 5_000, headersTimeout: 10_000, maxConnections },
    ca,
  })
}

/** The connection of one request that got this answer, whose body is "ok". */
async function first(answer: string): Promise<Peer> {
  const asked = ask({ path: '/a' })
  const peer = await upstream.next()
  await peer.has('\r\n\r\n')
  peer.socket.write(answer)
  expect(await asked).toBe('ok')
  return peer
}

async function ask(
  request: Partial<Dispatcher.RequestOptions> & { readonly path: string },
): Promise<string> {
  const { body } = await dispatcher.request({ method: 'GET', ...request })
  return body.text()
}
