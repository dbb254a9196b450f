import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import type { Config } from '../../config/schema.ts'
import type { Http1Arrival } from '../../proxy/arrival.ts'
import { gate } from '../../proxy/gate.ts'
import { ListenError } from '../../proxy/listen-on.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { createListener, type Listener } from '../../proxy/listener.ts'

const limits: Config['limits'] = {
  maxHeadBytes: 4096,
  headTimeout: 1_000,
  bodyGapTimeout: 1_000,
  answerGapTimeout: 1_000,
  maxConnections: 16,
  maxExchanges: 16,
  maxMcpBytes: 1024,
  maxMcpDepth: 16,
}

/** A listener that answers 200 to what the gate lets through, and 400 with the gate's words to the rest. */
interface Bench {
  readonly listener: Listener
  readonly port: number
  readonly faults: Readonly<Record<string, unknown>>[]
  /** Request targets that reached the handler. */
  readonly seen: string[]
}

const benches: Listener[] = []
afterEach(async () => {
  for (const listener of benches.splice(0)) await listener[Symbol.asyncDispose]()
})

async function start(
  handle?: (arrival: Http1Arrival) => Promise<void>,
  { isOverloaded }: { readonly isOverloaded?: () => boolean } = {},
): Promise<Bench> {
  const faults: Readonly<Record<string, unknown>>[] = []
  const seen: string[] = []
  const listener = createListener({
    limits,
    clock: systemClock,
    log: {
      info: () => undefined,
      warn: () => undefined,
      error: (fields) => void faults.push(fields),
    },
    ...(isOverloaded && { isOverloaded }),
    handle: async (arrival) => {
      seen.push(arrival.req.url ?? '')
      await (handle ?? answer)(arrival as Http1Arrival)
    },
  })
  benches.push(listener)
  const url = new URL(await listener.listen('127.0.0.1:0'))
  return { listener, port: Number(url.port), faults, seen }
}

async function answer({ req, res }: Http1Arrival): Promise<void> {
  const denial = gate(req)
  if (denial) res.writeHead(400, { connection: 'close' }).end(denial.detail)
  else res.writeHead(200).end(`ok ${req.url}`)
  req.resume()
}

/** Sends the text and gives everything that came back until the end. */
async function exchange(port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(text, 'latin1')
  return received(socket)
}

async function received(socket: Socket): Promise<string> {
  let answered = ''
  socket.on('data', (chunk) => (answered += chunk.toString('latin1')))
  // Not `once()` of the library: that takes a reset for a failure of the test.
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
  return answered
}

function request(...lines: readonly string[]): string {
  return `${lines.join('\r\n')}\r\n\r\n`
}

const host = 'Host: localhost'
const close = 'Connection: close'

describe('createListener()', () => {
  test('answers 431 to a head over the limit, as JSON and without its bytes', async () => {
    const { port, seen } = await start()
    const answered = await exchange(
      port,
      request('GET /x HTTP/1.1', host, `X-A: ${'b'.repeat(5000)}`),
    )
    expect(answered).toMatch(/^HTTP\/1\.1 431 /)
    expect(answered).toContain('connection: close')
    expect(JSON.parse(answered.slice(answered.indexOf('{')))).toMatchObject({
      code: 'request-refused',
      status: 431,
    })
    expect(answered).not.toContain('bbbb')
    expect(seen).toEqual([])
  })

  test('answers 431 to many more than 100 fields', async () => {
    const { port, seen } = await start()
    const fields = Array.from({ length: 200 }, () => 'A: 1')
    expect(await exchange(port, request('GET /x HTTP/1.1', host, ...fields))).toMatch(
      /^HTTP\/1\.1 431 /,
    )
    expect(seen).toEqual([])
  })

  test('answers 408 to a head that drips', async () => {
    const { port } = await start()
    expect(await exchange(port, `GET /x HTTP/1.1\r\n${host}\r\nX-A`)).toMatch(/^HTTP\/1\.1 408 /)
  })

  test('answers 405 to CONNECT and tunnels nothing', async () => {
    const { port, seen } = await start()
    const answered = await exchange(
      port,
      request('CONNECT evil.example:443 HTTP/1.1', 'Host: evil.example:443'),
    )
    expect(answered).toMatch(/^HTTP\/1\.1 405 /)
    expect(seen).toEqual([])
  })

  test('answers 417 to an expectation that it does not know', async () => {
    const { port, seen } = await start()
    expect(await exchange(port, request('GET /x HTTP/1.1', host, 'Expect: magic'))).toMatch(
      /^HTTP\/1\.1 417 /,
    )
    expect(seen).toEqual([])
  })

  test('hands over an upgrade with its socket, its first bytes and a response for refusals', async () => {
    const { port } = await start(async ({ req, res, upgrade }) => {
      expect(gate(req)).toBeUndefined()
      res.writeHead(403).end(`${upgrade?.head.toString()} ${upgrade?.socket === req.socket}`)
    })
    const upgrade = request('GET /x HTTP/1.1', host, 'Connection: Upgrade', 'Upgrade: websocket')
    const answered = await exchange(port, `${upgrade}first`)
    expect(answered).toMatch(/^HTTP\/1\.1 403 /)
    expect(answered).toContain('first true')
  })

  test('puts nothing of its own into an answer that has begun when the body turns bad', async () => {
    const { port } = await start(async ({ req, res }) => {
      req.resume()
      req.on('error', () => {})
      res.writeHead(200).write('begun')
    })
    const head = request('POST /x HTTP/1.1', host, 'Transfer-Encoding: chunked')
    const answered = await exchange(port, `${head}zz\r\n`)
    expect(answered).not.toContain('request-refused')
  })

  test('puts no refusal in the place of an earlier answer when a pipelined request is bad', async () => {
    const { port } = await start(async () => {
      await new Promise(() => {})
    })
    const answered = await exchange(port, `${request('GET /x HTTP/1.1', host)}BAD\r\n\r\n`)
    expect(answered).toBe('')
  })

  test('resets the connection and logs the code alone when the handler rejects', async () => {
    const { port, faults } = await start(async () => {
      throw new ListenError('secret')
    })
    expect(await exchange(port, request('GET /x HTTP/1.1', host))).toBe('')
    expect(faults).toEqual([{ code: 'ERR_LISTEN' }])
  })

  test('ends the rest of a body that stays out after its answer', async () => {
    const { port } = await start(async ({ res }) => void res.writeHead(200).end('early'))
    const head = request('POST /x HTTP/1.1', host, 'Content-Length: 10')
    expect(await exchange(port, `${head}a`)).toContain('early')
  })

  test('close() lets the answer in flight finish, closes its connection and accepts no more', async () => {
    const release = Promise.withResolvers<void>()
    const { listener, port, seen } = await start(async ({ res }) => {
      await release.promise
      res.writeHead(200).end('finished')
    })
    const answered = exchange(port, request('GET /x HTTP/1.1', host))
    await expect.poll(() => seen.length).toBe(1)
    listener.close()
    release.resolve()
    expect(await answered).toContain('finished')
    await expect(once(connect(port, '127.0.0.1'), 'connect')).rejects.toThrow('ECONNREFUSED')
  })

  test('closeIdle() closes silent and idle connections and leaves one in flight', async () => {
    const release = Promise.withResolvers<void>()
    const { listener, port, seen } = await start(async ({ req, res }) => {
      if (req.url === '/slow') await release.promise
      res.writeHead(200).end('finished')
    })
    const silent = received(connect(port, '127.0.0.1'))
    const idle = exchange(port, request('GET /quick HTTP/1.1', host))
    const busy = exchange(port, request('GET /slow HTTP/1.1', host, close))
    await expect.poll(() => seen.length).toBe(2)
    await new Promise((resolve) => setTimeout(resolve, 50))
    listener.closeIdle()
    expect(await silent).toBe('')
    expect(await idle).toContain('finished')
    release.resolve()
    expect(await busy).toContain('finished')
  })

  test('closeIdle() and close() leave an answer alone that the agent has not taken yet', async () => {
    const body = Buffer.alloc(16 * 1024 * 1024, 'x')
    const { listener, port } = await start(async ({ res }) => {
      res.writeHead(200, ['content-length', String(body.length)])
      res.end(body)
    })
    const socket = connect(port, '127.0.0.1')
    socket.write(request('GET /x HTTP/1.1', host))
    await once(socket, 'readable')
    listener.closeIdle()
    listener.close()
    listener.closeIdle()
    let bytes = 0
    socket.on('data', (chunk: Buffer) => (bytes += chunk.length))
    await once(socket, 'close')
    expect(bytes).toBeGreaterThan(body.length)
  })

  test('disposal resets upgraded sockets too', async () => {
    const { listener, port, seen } = await start(async () => {})
    const upgrade = request('GET /x HTTP/1.1', host, 'Connection: Upgrade', 'Upgrade: websocket')
    const ended = exchange(port, upgrade)
    await expect.poll(() => seen.length).toBe(1)
    await listener[Symbol.asyncDispose]()
    expect(await ended).toBe('')
  })

  test('resets an agent that leaves its answer unread past the limit, and no other', async () => {
    const { port, seen } = await start(async ({ req, res }) => {
      // More than the two sockets hold, or a little at a time to one that reads.
      if (req.url === '/unread') return void res.end(Buffer.alloc(64 * 1024 * 1024))
      res.writeHead(200)
      const timer = setInterval(() => res.write('more\n'), 20)
      res.once('close', () => clearInterval(timer))
    })
    const reader = connect(port, '127.0.0.1', () =>
      reader.write(request('GET /read HTTP/1.1', host)),
    )
    reader.resume()
    const lazy = connect(port, '127.0.0.1', () => lazy.write(request('GET /unread HTTP/1.1', host)))
    lazy.pause()
    const ends: string[] = []
    lazy.on('error', (error) => void ends.push(String(error)))
    lazy.on('close', () => void ends.push('closed'))
    await expect.poll(() => seen.length).toBe(2)
    // A paused socket sees its reset only when it reads on.
    await new Promise((resolve) => setTimeout(resolve, 3_500))
    lazy.resume()
    await expect.poll(() => ends).toContain('Error: read ECONNRESET')
    expect(reader.destroyed).toBe(false)
    reader.destroy()
  })

  test('resets new connections while it is overloaded, and serves those that it has', async () => {
    let isOverloaded = false
    const { port } = await start(undefined, { isOverloaded: () => isOverloaded })
    const kept = connect(port, '127.0.0.1')
    let text = ''
    kept.on('data', (chunk) => (text += chunk.toString()))
    kept.write(request('GET /one HTTP/1.1', host))
    await expect.poll(() => text).toContain('ok /one')
    isOverloaded = true
    const refused = exchange(port, request('GET /new HTTP/1.1', host)).catch(() => '')
    expect(await refused).toBe('')
    kept.write(request('GET /two HTTP/1.1', host))
    await expect.poll(() => text).toContain('ok /two')
    isOverloaded = false
    expect(await exchange(port, request('GET /new HTTP/1.1', host, close))).toContain('ok /new')
    kept.destroy()
  })

  test.each(['127.0.0.1', '127.0.0.1:70000', 'a b:1', '::1:80'])(
    'rejects the address %s',
    async (address) => {
      const { listener } = await start()
      await expect(listener.listen(address)).rejects.toThrow(ListenError)
    },
  )

  test('rejects with the code of the system when the port is taken', async () => {
    const { port } = await start()
    const second = createListener({
      limits,
      clock: systemClock,
      log: { info: () => undefined, warn: () => undefined, error: () => {} },
      handle: answer,
    })
    await expect(second.listen(`127.0.0.1:${port}`)).rejects.toMatchObject({
      code: 'ERR_LISTEN',
      message: expect.stringContaining('EADDRINUSE'),
    })
  })
})
