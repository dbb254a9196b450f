import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
// oxlint-disable-next-line import/no-unassigned-import -- adds `request()` to what dispatches
import 'undici'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { UpstreamConfig } from '../../config/schema.ts'
import { createUpstreamClient } from '../../proxy/upstream-client.ts'

let server: Server
let requests = 0
let port = 0
beforeEach(async () => {
  requests = 0
  server = createServer((_, res) => {
    requests += 1
    res.end('ok')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  port = typeof address === 'object' && address ? address.port : 0
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

describe('createUpstreamClient()', () => {
  test.each([
    '127.0.0.1',
    '127.1.2.3',
    '0.0.0.0',
    '10.1.2.3',
    '100.64.0.1',
    '169.254.169.254',
    '172.31.255.255',
    '192.168.0.1',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '2130706433',
    '0x7f.1',
    '[::1]',
    '[::]',
    '[::ffff:127.0.0.1]',
    '[::ffff:a9fe:a9fe]',
    '[64:ff9b::7f00:1]',
    '[64:ff9b:1::a00:1]',
    '[2001:0:7f00:1::]',
    '[2002:7f00:1::]',
    '[fc00::1]',
    '[fd00:ec2::254]',
    '[fe80::1]',
    '[fec0::1]',
    '[ff02::1]',
  ])('throws when the URL names the forbidden address %s', (host) => {
    const url = `http://${host}:8080`
    expect(() => open({ url })).toThrow(expect.objectContaining({ code: 'ERR_UPSTREAM_ADDRESS' }))
    expect(() => open({ url, allowPrivateAddresses: true })).not.toThrow()
  })

  test.each(['93.184.216.34', '172.32.0.1', '[2606:2800:220:1::1]', 'api.example.org'])(
    'takes %s',
    (host) => {
      expect(() => open({ url: `http://${host}` })).not.toThrow()
    },
  )

  test.each(['localhost', 'LOCALHOST'])(
    'refuses to dial the name %s, which leads to loopback',
    async (host) => {
      const client = open({ url: `http://${host}:${port}` })
      await expect(get(client)).rejects.toMatchObject({ code: 'ERR_UPSTREAM_ADDRESS' })
      expect(requests).toBe(0)
      await client.close()
    },
  )

  test('dials loopback when private addresses are allowed', async () => {
    const client = open({ url: `http://localhost:${port}`, allowPrivateAddresses: true })
    expect(await get(client)).toBe('ok')
    await client.close()
  })

  test('says that a name does not resolve', async () => {
    const client = open({ url: 'http://no-such-host.invalid' })
    await expect(get(client)).rejects.toMatchObject({
      code: expect.stringMatching(/^(?:ENOTFOUND|EAI_AGAIN|ERR_UPSTREAM_CONNECT_TIMEOUT)$/),
    })
    await client.close()
  })

  test('lets what is in flight end when it closes', async () => {
    const client = open({ url: `http://127.0.0.1:${port}`, allowPrivateAddresses: true })
    const answer = get(client)
    await client.close()
    expect(await answer).toBe('ok')
  })
})

function open(more: Pick<UpstreamConfig, 'url'> & Partial<UpstreamConfig>) {
  return createUpstreamClient({
    config: {
      name: 'api',
      kind: 'rest',
      protocol: 'http1',
      sensitivity: 'internal',
      credential: { none: true },
      allowPrivateAddresses: false,
      unsafeAllowSetCookie: false,
      connectTimeout: 5_000,
      headersTimeout: 5_000,
      maxConnections: 2,
      ...more,
    },
    ca: undefined,
  })
}

async function get({ dispatcher }: ReturnType<typeof open>): Promise<string> {
  const { body } = await dispatcher.request({ path: '/', method: 'GET' })
  return body.text()
}
