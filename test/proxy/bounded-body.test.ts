import { createServer, request, type ClientRequest, type IncomingMessage } from 'node:http'
import { once } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'
import { readBoundedBody } from '../../proxy/bounded-body.ts'
import type { Denial } from '../../policy/types.ts'

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

/** Sends one request with `send` and gives what `readBoundedBody()` made of it. */
async function read(
  send: (client: ClientRequest) => unknown,
  options: {
    readonly maxBytes?: number
    readonly gapTimeoutMs?: number
    readonly headers?: Record<string, string>
  } = {},
): Promise<Buffer | Denial> {
  const { maxBytes = 10, gapTimeoutMs = 5_000, headers = {} } = options
  const result = Promise.withResolvers<Buffer | Denial>()
  const server = createServer((req: IncomingMessage) => {
    result.resolve(readBoundedBody(req, { maxBytes, gapTimeoutMs }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const client = request({ host: '127.0.0.1', port, method: 'POST', headers })
  client.on('error', () => {})
  closers.push(() => {
    client.destroy()
    server.closeAllConnections()
    server.close()
  })
  send(client)
  return result.promise
}

describe('readBoundedBody()', () => {
  test('gives the whole body, in whatever pieces it comes', async () => {
    const body = await read(async (client) => {
      for (const piece of ['abc', 'd', 'efghij']) {
        client.write(piece)
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      client.end()
    })
    expect(body).toEqual(Buffer.from('abcdefghij'))
  })

  test('gives an empty body', async () => {
    expect(await read((client) => client.end())).toEqual(Buffer.alloc(0))
  })

  test('gives a large body byte for byte', async () => {
    const sent = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251))
    const body = await read((client) => client.end(sent), { maxBytes: 300_000 })
    expect(Buffer.isBuffer(body) && body.equals(sent)).toBe(true)
  })

  test('refuses by Content-Length before a byte of the body came', async () => {
    const headers = { 'content-length': '11' }
    expect(await read((client) => client.flushHeaders(), { headers })).toMatchObject({
      code: 'request-refused',
      detail: 'body: larger than the limit',
    })
  })

  test('refuses a chunked body that passes the limit', async () => {
    expect(await read((client) => client.write('12345678901'))).toMatchObject({
      detail: 'body: larger than the limit',
    })
  })

  test('refuses a body that falls silent', async () => {
    expect(await read((client) => client.write('abc'), { gapTimeoutMs: 50 })).toMatchObject({
      detail: 'body: too slow',
    })
  })

  test('refuses a body that is cut off, and gives no part of it', async () => {
    const body = await read(
      (client) => {
        client.write('abc')
        setTimeout(() => client.destroy(), 30)
      },
      { headers: { 'content-length': '9' } },
    )
    expect(body).toMatchObject({
      code: 'request-refused',
      detail: 'body: ended before it was complete',
    })
  })
})
