import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { connect, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import { grantChain } from '../../policy/grant.ts'
import { Exchanges } from '../../proxy/exchanges.ts'
import { requestBody } from '../../proxy/request-body.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { grant, http } from '../kit/decide-input.ts'

let server: Server | undefined
afterEach(() => {
  server?.closeAllConnections()
  server?.close()
})

describe('requestBody()', () => {
  test('is nothing when there is none', async () => {
    const { req, exchange } = await upload('Content-Length: 0')
    expect(requestBody(req, { body: 'none', exchange, gapTimeoutMs: 1_000 })).toBeNull()
    expect(exchange.bytesUp).toBe(0)
  })

  test('is the very bytes that were judged', async () => {
    const { req, exchange } = await upload('Content-Length: 0')
    const body = Buffer.from('judged')
    expect(requestBody(req, { body, exchange, gapTimeoutMs: 1_000 })).toBe(body)
    expect(exchange.bytesUp).toBe(6)
  })

  test('streams and counts piece by piece', async () => {
    const { read, socket, exchange } = await upload('Content-Length: 6')
    const pieces = read()
    socket.write('one')
    expect(String((await pieces.next()).value)).toBe('one')
    expect(exchange.bytesUp).toBe(3)
    socket.write('two')
    expect(String((await pieces.next()).value)).toBe('two')
    expect((await pieces.next()).done).toBe(true)
    expect(exchange.bytesUp).toBe(6)
  })

  test('ends in an error, with the piece that came too late left out, when it is cut', async () => {
    const { read, socket, exchanges, exchange } = await upload('Content-Length: 6')
    const pieces = read()
    socket.write('one')
    await pieces.next()
    exchanges.cutAll('task-terminated')
    socket.write('two')
    await expect(pieces.next()).rejects.toMatchObject({ code: 'ERR_BODY_CUT' })
    expect(exchange.bytesUp).toBe(3)
  })

  test('ends in an error, never as complete, when the agent leaves', async () => {
    const { read, socket } = await upload('Content-Length: 6')
    const pieces = read()
    socket.write('one')
    await pieces.next()
    socket.destroy()
    await expect(pieces.next()).rejects.toMatchObject({
      code: expect.stringMatching(/^(?:ECONNRESET|ERR_BODY_ABORTED)$/),
    })
  })

  test('ends in an error when no piece comes in time', async () => {
    const { read, socket } = await upload('Transfer-Encoding: chunked')
    const pieces = read(100)
    socket.write('3\r\none\r\n')
    await pieces.next()
    await expect(pieces.next()).rejects.toMatchObject({ code: 'ERR_BODY_GAP' })
  })

  test('counts no time in which nobody asks for a piece', async () => {
    const { read, socket } = await upload('Content-Length: 400000')
    const pieces = read(500)
    socket.write('x'.repeat(400_000))
    await pieces.next()
    // The stream fills to its bound and then waits for its reader, longer than a gap may be.
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    let rest = 0
    for await (const piece of pieces) rest += piece.length
    expect(rest).toBeGreaterThan(0)
  })

  test('leaves the socket of the agent open when the upstream has enough', async () => {
    const { body, req, socket } = await upload('Content-Length: 6')
    socket.write('one')
    const stream = body(10_000)
    await once(stream, 'readable')
    stream.destroy()
    socket.write('two')
    await once(stream, 'close')
    expect([req.socket.destroyed, req.destroyed]).toEqual([false, false])
  })
})

async function upload(field: string) {
  const arrived = Promise.withResolvers<IncomingMessage>()
  server = createServer((req) => arrived.resolve(req))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const socket: Socket = connect(typeof address === 'object' && address ? address.port : 0)
  socket.on('error', () => undefined)
  socket.write(`POST / HTTP/1.1\r\nHost: agent\r\n${field}\r\n\r\n`)
  const req = await arrived.promise
  const exchanges = new Exchanges({ clock: systemClock })
  const chain = grantChain(grant())
  const exchange = exchanges.track({ chain, operation: http('POST'), upstreamName: 'api' })
  const body = (gapTimeoutMs: number): Readable => {
    const made = requestBody(req, { body: 'stream', exchange, gapTimeoutMs })
    if (!(made instanceof Readable)) throw new Error('Expected a stream')
    return made
  }
  return {
    req,
    socket,
    exchanges,
    exchange,
    body,
    read: (gapTimeoutMs = 10_000): AsyncIterableIterator<Buffer> =>
      body(gapTimeoutMs)[Symbol.asyncIterator](),
  }
}
