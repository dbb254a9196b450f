import { once } from 'node:events'
import { connect } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import type { AgentRequest, AgentResponse } from '../../proxy/arrival.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { createListener, type Listener } from '../../proxy/listener.ts'
import {
  codeOf,
  dataFrame,
  errorCode,
  flag,
  frame,
  frameType,
  headersFrame,
  openFrames,
  preface,
  rstFrame,
  type Field,
} from '../kit/http2-frames.ts'
import { limits, until, watch } from '../kit/relay.ts'

const get: readonly Field[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':authority', 'agent'],
  [':path', '/a'],
]

interface Bench {
  readonly listener: Listener
  readonly port: number
  readonly faults: Readonly<Record<string, unknown>>[]
  /** What was asked and is not answered. */
  readonly waiting: AgentResponse[]
  readonly asked: AgentRequest[]
}

const listeners: Listener[] = []
afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener[Symbol.asyncDispose]()
})

/** A listener that answers when the test says so. */
async function start({
  headTimeout = 10_000,
  answerGapTimeout = 10_000,
  fails = false,
} = {}): Promise<Bench> {
  const faults: Readonly<Record<string, unknown>>[] = []
  const waiting: AgentResponse[] = []
  const asked: AgentRequest[] = []
  const listener = createListener({
    limits: { ...limits, headTimeout, answerGapTimeout },
    clock: systemClock,
    log: {
      info: () => undefined,
      warn: () => undefined,
      error: (fields) => void faults.push(fields),
    },
    handle: async ({ req, res }) => {
      if (fails) throw new Error('unforeseen')
      asked.push(req)
      waiting.push(res)
    },
  })
  listeners.push(listener)
  const url = new URL(await listener.listen('127.0.0.1:0'))
  return { listener, port: Number(url.port), faults, waiting, asked }
}

describe('createListener() with HTTP/2', () => {
  test('knows the preface in whatever pieces it comes', async () => {
    const { port, waiting } = await start()
    const agent = openFrames(port, { hello: false })
    agent.socket.setNoDelay()
    for (const byte of preface) {
      agent.send(Buffer.of(byte))
      await new Promise((resolve) => setImmediate(resolve))
    }
    agent.send(frame('settings'), headersFrame(1, get))
    await until(() => waiting.length === 1)
    waiting[0]?.writeHead(200, [])
    waiting[0]?.end('ok')
    const data = await agent.frame((one) => one.type === frameType.data)
    expect(data.payload.toString()).toBe('ok')
    agent.socket.destroy()
  })

  test.each([
    ['in pieces', ['P', 'O', 'ST /a HTTP/1.1\r\nHost: a\r\n', 'Content-Length: 0\r\n\r\n']],
    ['with a method like the preface', ['PRO', 'PFIND /a HTTP/1.1\r\nHost: a\r\n\r\n']],
    ['at once', ['GET /a HTTP/1.1\r\nHost: a\r\n\r\n']],
  ])('takes an HTTP/1 request that comes %s for one', async (_, pieces) => {
    const { port, waiting } = await start()
    const agent = watch(connect(port, '127.0.0.1'))
    agent.socket.setNoDelay()
    for (const piece of pieces) {
      agent.socket.write(piece)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await until(() => waiting.length === 1)
    waiting[0]?.writeHead(200, ['content-length', '2'])
    waiting[0]?.end('ok')
    expect(await agent.has('\r\n\r\nok')).toMatch(/^HTTP\/1\.1 200 /)
    agent.socket.destroy()
  })

  test('answers 400 to a preface of another version', async () => {
    const { port, waiting } = await start()
    const agent = watch(connect(port, '127.0.0.1'))
    agent.socket.write('PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n')
    expect(await agent.has('"code":"request-refused"')).toMatch(/^HTTP\/1\.1 400 /)
    expect(waiting).toEqual([])
  })

  test.each([
    ['says nothing', ''],
    ['stops within the preface', 'PRI * HT'],
  ])('answers 408 to a connection that %s', async (_, said) => {
    const { port } = await start({ headTimeout: 200 })
    const agent = watch(connect(port, '127.0.0.1'))
    agent.socket.write(said)
    expect(await agent.has('"code":"request-refused"')).toMatch(/^HTTP\/1\.1 408 /)
    await agent.ended
  })

  test('closes a connection that says no more than the preface', async () => {
    const { port } = await start({ headTimeout: 200 })
    const agent = watch(connect(port, '127.0.0.1'))
    agent.socket.write(preface)
    // The last frame of ours: GOAWAY with NO_ERROR.
    expect(await agent.has('\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0')).toBeDefined()
    expect(await agent.ended).toBe('fin')
  })

  test('lets go of a connection that it has ended, also when the agent does not end its side', async () => {
    const { port } = await start({ headTimeout: 200 })
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    const failed = once(socket, 'error', { signal: AbortSignal.timeout(10_000) })
    socket.resume()
    socket.write(preface)
    await once(socket, 'end')
    // A socket that is gone on the other side answers bytes with a reset.
    const writing = setInterval(() => socket.write(frame('settings')), 50)
    const [error] = await failed
    clearInterval(writing)
    expect(error).toMatchObject({ code: expect.stringMatching(/^(?:ECONNRESET|EPIPE)$/) })
  })

  test('resets a stream whose agent leaves the answer unread past the limit, and no other', async () => {
    const { port, waiting } = await start({ answerGapTimeout: 300 })
    const agent = openFrames(port)
    agent.send(headersFrame(1, get), headersFrame(3, get))
    await until(() => waiting.length === 2)
    const [unread, other] = waiting
    unread?.writeHead(200, [])
    // More than the window of a stream holds, and the agent opens it no further.
    unread?.write(Buffer.alloc(1024 * 1024))
    const rst = await agent.frame((one) => one.type === frameType.rstStream)
    expect([rst.stream, codeOf(rst)]).toEqual([1, errorCode.internal])
    expect(other?.closed).toBe(false)
    agent.socket.destroy()
  })

  test.each([
    ['with its body', dataFrame(1, 'x', { endStream: true }), true],
    ['by a reset with NO_ERROR', rstFrame(1, errorCode.none), false],
    ['by a reset with CANCEL', rstFrame(1, errorCode.cancel), false],
  ])('says of a request that ended %s whether it is complete', async (_, end, isComplete) => {
    const { port, asked } = await start()
    const agent = openFrames(port)
    agent.send(headersFrame(1, get, { endStream: false }), dataFrame(1, 'x'))
    await until(() => asked.length === 1)
    const [req] = asked
    let isOver = false
    const over = (): void => {
      isOver = true
    }
    req?.on('end', over)
    req?.on('close', over)
    req?.on('data', () => undefined)
    expect(req?.complete).toBe(false)
    agent.send(end)
    await until(() => isOver)
    expect(req?.complete).toBe(isComplete)
    agent.socket.destroy()
  })

  test('ends a connection whose agent has ended its side', async () => {
    const { port, waiting } = await start()
    const agent = openFrames(port)
    agent.send(headersFrame(1, get))
    await until(() => waiting.length === 1)
    agent.socket.end()
    await agent.ended
    await until(() => waiting[0]?.closed === true)
    expect(waiting[0]?.writableFinished).toBe(false)
  })

  test('resets the stream of a request that ends in a fault, and logs its code', async () => {
    const { port, faults } = await start({ fails: true })
    const agent = openFrames(port)
    agent.send(headersFrame(1, get))
    const rst = await agent.frame((one) => one.type === frameType.rstStream)
    expect(codeOf(rst)).toBe(errorCode.internal)
    expect(faults).toEqual([{ code: 'ERR_UNKNOWN' }])
    agent.socket.destroy()
  })

  test('closeIdle() says goodbye to connections without a stream, and leaves one in flight', async () => {
    const { listener, port, waiting } = await start()
    const busy = openFrames(port)
    busy.send(headersFrame(1, get))
    const idle = openFrames(port)
    await idle.frame((one) => one.type === frameType.settings && (one.flags & flag.ack) !== 0)
    await until(() => waiting.length === 1)
    listener.closeIdle()
    const goodbye = await idle.frame((one) => one.type === frameType.goaway)
    expect(codeOf(goodbye)).toBe(errorCode.none)
    await idle.ended
    waiting[0]?.writeHead(200, [])
    waiting[0]?.end('ok')
    await busy.frame((one) => one.type === frameType.data && one.payload.includes('ok'))
    expect(busy.frames.some((one) => one.type === frameType.goaway)).toBe(false)
    busy.socket.destroy()
  })

  test('close() says goodbye, lets what is in flight end, and takes nothing new', async () => {
    const { listener, port, waiting } = await start()
    const agent = openFrames(port)
    agent.send(headersFrame(1, get))
    await until(() => waiting.length === 1)
    listener.close()
    await agent.frame((one) => one.type === frameType.goaway)
    agent.send(headersFrame(3, get))
    waiting[0]?.writeHead(200, [])
    waiting[0]?.end('ok')
    await agent.frame((one) => one.type === frameType.data && one.payload.includes('ok'))
    await agent.ended
    expect(waiting).toHaveLength(1)
  })

  test('disposal ends connections with streams in flight', async () => {
    const { listener, port, waiting } = await start()
    const agent = openFrames(port)
    agent.send(headersFrame(1, get))
    await until(() => waiting.length === 1)
    const closed = once(agent.socket, 'close')
    await listener[Symbol.asyncDispose]()
    expect(await closed).toBeDefined()
  })
})
