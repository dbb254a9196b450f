import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import type { Config } from '../../config/schema.ts'
import { deny } from '../../policy/denial.ts'
import type { McpMessage } from '../../policy/types.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { createListener, type Listener } from '../../proxy/listener.ts'
import { refuseArrival } from '../../proxy/refuse-arrival.ts'
import { until } from '../kit/relay.ts'

const limits: Config['limits'] = {
  maxHeadBytes: 4096,
  headTimeout: 5_000,
  bodyGapTimeout: 5_000,
  answerGapTimeout: 5_000,
  maxConnections: 16,
  maxExchanges: 16,
  maxMcpBytes: 1024,
  maxMcpDepth: 16,
}
const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n'

let listener: Listener | undefined
afterEach(() => listener?.[Symbol.asyncDispose]())

describe('refuseArrival()', () => {
  test('keeps the connection when the body is whole or small', async () => {
    const { send, seen } = await start()
    const agent = send(post('Content-Length: 4', 'body'))
    await agent.has('policy-denied')
    agent.socket.write(post('Content-Length: 4', 'half').slice(0, -2))
    await until(() => seen.length === 2)
    agent.socket.write(`lf${post('Content-Length: 0', '')}`)
    await until(() => seen.length === 3)
    expect(agent.text()).not.toMatch(/connection: close/i)
    agent.socket.destroy()
  })

  test.each([
    ['chunks', 'Transfer-Encoding: chunked'],
    ['a large body', 'Content-Length: 65537'],
  ])('closes after its answer to %s, and takes the rest for no request', async (_, field) => {
    const { send, seen } = await start()
    const agent = send(post(field, ''))
    const text = await agent.has('policy-denied')
    expect(text).toMatch(/connection: close/i)
    agent.socket.write('GET /evil HTTP/1.1\r\nHost: agent\r\n\r\n')
    await agent.closed
    expect(seen).toEqual(['/a'])
  })

  test('closes when the agent goes on sending without an end', async () => {
    const { send } = await start()
    const agent = send(post('Content-Length: 99999999', ''))
    const pump = (): void => {
      while (!agent.socket.destroyed && agent.socket.write(Buffer.alloc(16_384)));
    }
    agent.socket.on('drain', pump)
    await agent.has('policy-denied')
    pump()
    await agent.closed
    expect(agent.text()).toMatch(/^HTTP\/1\.1 403 /)
  })

  test('answers an upgrade in HTTP and ends the connection', async () => {
    const { send } = await start()
    const agent = send(`GET /a HTTP/1.1\r\nHost: agent\r\n${upgrade}\r\n`)
    expect(await agent.has('policy-denied')).toMatch(/^HTTP\/1\.1 403 /)
    await agent.closed
  })

  test('answers an MCP message in its own dialect', async () => {
    const { send } = await start({ type: 'request', id: 7, method: 'tools/list' })
    const agent = send(post('Content-Length: 2', '{}'))
    const text = await agent.has('"jsonrpc":"2.0"')
    expect(text).toMatch(/^HTTP\/1\.1 200 /)
    expect(text).toContain('"id":7')
    agent.socket.destroy()
  })

  test('says nothing twice', async () => {
    const { send, statuses } = await start(undefined, 2)
    const agent = send(post('Content-Length: 0', ''))
    await agent.has('policy-denied')
    await until(() => statuses.length === 2)
    expect(statuses).toEqual([403, 403])
    expect(agent.text().match(/HTTP\/1\.1/g)).toHaveLength(1)
    agent.socket.destroy()
  })
})

function post(field: string, body: string): string {
  return `POST /a HTTP/1.1\r\nHost: agent\r\n${field}\r\n\r\n${body}`
}

async function start(message?: McpMessage, times = 1) {
  const seen: string[] = []
  const statuses: number[] = []
  listener = createListener({
    limits,
    clock: systemClock,
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
    handle(arrival) {
      seen.push(arrival.req.url ?? '')
      for (let time = 0; time < times; time += 1) {
        const context = { decisionId: 'd1', txn: undefined, message }
        statuses.push(refuseArrival(arrival, deny('policy-denied', 'd'), context))
      }
      return Promise.resolve()
    },
  })
  const { port } = new URL(await listener.listen('127.0.0.1:0'))
  return { seen, statuses, send: (text: string) => watch(connect(Number(port), '127.0.0.1'), text) }
}

function watch(socket: Socket, request: string) {
  let text = ''
  socket.on('data', (chunk) => (text += chunk.toString('latin1')))
  socket.on('error', () => undefined)
  // Not `once()` of the library: that takes a reset for a failure of the test.
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  socket.write(request)
  return {
    socket,
    closed,
    text: () => text,
    has: async (wanted: string) => {
      await until(
        () => text.includes(wanted),
        () => wanted,
      )
      return text
    },
  }
}
