import { readFileSync } from 'node:fs'
import { createServer as createTcpServer } from 'node:net'
import { once } from 'node:events'
import { createServer as createTlsServer } from 'node:tls'
import { describe, expect, test } from 'vitest'
// oxlint-disable-next-line import/no-unassigned-import -- adds `request()` to what dispatches
import 'undici'
import type { UpstreamConfig } from '../../config/schema.ts'
import { createUpstreamClient } from '../../proxy/upstream-client.ts'
import { startFrameUpstream, startHttp2Upstream } from '../kit/http2.ts'
import { errorCode, frameType, goawayFrame, headersFrame } from '../kit/http2-frames.ts'
import { until } from '../kit/relay.ts'
import { localhostCertFile, startTlsHttp2Server, startTlsServer } from '../kit/tls.ts'

const ca = readFileSync(localhostCertFile, 'utf8')
const key = readFileSync(new URL('../kit/tls/localhost.key.pem', import.meta.url))

describe('Http2Dispatcher', () => {
  test('speaks h2 over TLS with the authority of its configuration', async () => {
    await using server = await startTlsHttp2Server((stream) => {
      stream.respond({ ':status': 200 })
      stream.end(String(stream.session?.alpnProtocol))
    })
    await using client = open({ url: server.url, allowPrivateAddresses: true }, ca)
    expect(await get(client)).toBe('h2')
  })

  test('refuses an upstream whose certificate nobody signed', async () => {
    await using server = await startTlsHttp2Server((stream) =>
      stream.respond({}, { endStream: true }),
    )
    await using client = open({ url: server.url, allowPrivateAddresses: true })
    await expect(get(client)).rejects.toMatchObject({ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
  })

  test('refuses an upstream over TLS that does not choose h2', async () => {
    let requests = 0
    await using server = await startTlsServer((_, res) => {
      requests += 1
      res.end('ok')
    })
    await using client = open({ url: server.url, allowPrivateAddresses: true }, ca)
    await expect(get(client)).rejects.toMatchObject({
      code: expect.stringMatching(/^(?:ERR_UPSTREAM_PROTOCOL|ERR_SSL_.*|ECONNRESET)$/),
    })
    expect(requests).toBe(0)
  })

  test('sends nothing to an upstream over TLS that chooses no protocol', async () => {
    let received = 0
    const server = createTlsServer({ key, cert: ca }, (socket) => {
      socket.on('error', () => undefined)
      socket.on('data', (chunk) => {
        received += chunk.length
      })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' && address ? address.port : 0
    await using client = open({ url: `https://localhost:${port}`, allowPrivateAddresses: true }, ca)
    await expect(get(client)).rejects.toMatchObject({ code: 'ERR_UPSTREAM_PROTOCOL' })
    expect(received).toBe(0)
    server.close()
  })

  test('refuses to dial a name that leads to loopback', async () => {
    await using upstream = await startHttp2Upstream()
    await using client = open({ url: upstream.url.replace('127.0.0.1', 'localhost') })
    await expect(get(client)).rejects.toMatchObject({ code: 'ERR_UPSTREAM_ADDRESS' })
    expect(upstream.sessions).toHaveLength(0)
  })

  test('throws when the URL names a forbidden address outright', () => {
    expect(() => open({ url: 'http://169.254.169.254' })).toThrow(
      expect.objectContaining({ code: 'ERR_UPSTREAM_ADDRESS' }),
    )
  })

  test('says that nobody listens, and dials again for the next request', async () => {
    const server = createTcpServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' && address ? address.port : 0
    server.close()
    await once(server, 'close')
    await using client = open({ url: `http://127.0.0.1:${port}`, allowPrivateAddresses: true })
    await expect(get(client)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await expect(get(client)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('gives up on a connection that does not come to be in time', async () => {
    // TLS that is never answered.
    const server = createTcpServer(() => undefined).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' && address ? address.port : 0
    await using client = open({
      url: `https://127.0.0.1:${port}`,
      allowPrivateAddresses: true,
      connectTimeout: 100,
    })
    await expect(get(client)).rejects.toMatchObject({ code: 'ERR_UPSTREAM_CONNECT_TIMEOUT' })
    server.close()
  })

  test('lets what was taken end when the upstream goes away, and asks elsewhere for the next', async () => {
    await using upstream = await startFrameUpstream()
    await using client = open({ url: upstream.url, allowPrivateAddresses: true })
    const first = get(client)
    const old = await upstream.next()
    await old.frame((one) => one.type === frameType.headers)
    old.send(goawayFrame(1, errorCode.none))
    await old.frame((one) => one.type === frameType.goaway)
    const second = get(client)
    const fresh = await upstream.next()
    await fresh.frame((one) => one.type === frameType.headers)
    old.send(headersFrame(1, [[':status', '204']]))
    fresh.send(headersFrame(1, [[':status', '204']]))
    expect(await Promise.all([first, second])).toEqual(['', ''])
  })

  test('takes no pushed answer', async () => {
    await using upstream = await startHttp2Upstream()
    await using client = open({ url: upstream.url, allowPrivateAddresses: true })
    const answer = get(client)
    const { stream } = await upstream.next()
    expect(stream.pushAllowed).toBe(false)
    stream.respond({ ':status': 200 })
    stream.end('ok')
    expect(await answer).toBe('ok')
  })

  test('lets what is in flight end when it closes, and closes its connections', async () => {
    await using upstream = await startHttp2Upstream()
    await using client = open({ url: upstream.url, allowPrivateAddresses: true })
    const answer = get(client)
    const { stream } = await upstream.next()
    const closed = client.close()
    stream.respond({ ':status': 200 })
    stream.end('ok')
    expect(await answer).toBe('ok')
    await closed
    await until(() => upstream.sessions.every(({ destroyed }) => destroyed))
  })
})

function open(more: Pick<UpstreamConfig, 'url'> & Partial<UpstreamConfig>, authority?: string) {
  const client = createUpstreamClient({
    config: {
      name: 'api',
      kind: 'rest',
      protocol: 'http2',
      sensitivity: 'internal',
      credential: { none: true },
      allowPrivateAddresses: false,
      unsafeAllowSetCookie: false,
      connectTimeout: 5_000,
      headersTimeout: 5_000,
      maxConnections: 2,
      ...more,
    },
    ca: authority,
  })
  return { ...client, [Symbol.asyncDispose]: () => client.dispatcher.destroy() }
}

async function get({ dispatcher }: ReturnType<typeof open>): Promise<string> {
  const { body } = await dispatcher.request({
    path: '/',
    method: 'GET',
    headers: ['host', 'upstream.example'],
  })
  return body.text()
}
