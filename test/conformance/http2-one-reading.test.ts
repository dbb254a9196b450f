import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { openAgent, startHttp2Upstream, type Served } from '../kit/http2.ts'
import {
  dataFrame,
  frameType,
  headersFrame,
  openFrames,
  type Field,
  type FramePeer,
} from '../kit/http2-frames.ts'
import { startRelay, until, type Peer } from '../kit/relay.ts'

/** fast-check prints it with the counterexample. */
const runs = { numRuns: 300, seed: 20_260_101 } as const

const words = (text: string): readonly string[] => text.split(' ')
const passing = words('x-plain accept user-agent x-bin-bin content-type')
const owned = words(
  'authorization cookie task-id x-forwarded-for via forwarded x-api-key te trailer',
)
const hostile = [
  ...words('connection transfer-encoding upgrade keep-alive proxy-connection http2-settings'),
  ...words('host content-length X-Upper x_under :authority :path :method :scheme :evil expect'),
  'x bad',
  'x\r\nevil',
  '',
]
const plainValues = ['1', 'a, b', '', 'caf\u00e9', 'a\tb', '"q"', '%0d%0a', 'trailers', 'close']
const hostileValues = [
  'a\r\nx-evil: 1',
  'a\nx-evil: 1',
  'a\u0000x-evil\u00001',
  ' lead',
  'trail ',
  'del\u007f',
  'chunked',
  '5',
  'a\r\n\r\nGET /evil HTTP/1.1\r\n\r\n',
]

const values = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...plainValues) },
  { weight: 1, arbitrary: fc.constantFrom(...hostileValues) },
)
const fields = fc.tuple(
  fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...passing) },
    { weight: 2, arbitrary: fc.constantFrom(...owned) },
    { weight: 1, arbitrary: fc.constantFrom(...hostile) },
  ),
  values,
)
const often = <T>(usual: T, ...rare: readonly T[]): fc.Arbitrary<T> =>
  fc.oneof(
    { weight: 12, arbitrary: fc.constant(usual) },
    { weight: 1, arbitrary: fc.constantFrom(...rare) },
  )

const requests = fc.record({
  method: fc.oneof(
    fc.constantFrom('POST', 'GET', 'DELETE'),
    often('PUT', 'get', 'TRACE', 'P T', 'CONNECT'),
  ),
  scheme: often('http', 'https', 'ftp', ''),
  authority: often('agent', 'agent:80', 'a@b', 'agent\r\nx: y', ''),
  path: often(
    '/a?b=c',
    '/a b',
    '/a\r\nx-evil: 1',
    '//a',
    '/a HTTP/1.1\r\nx: y',
    '*',
    '',
    'http://b/',
  ),
  more: fc.array(fields, { maxLength: 8 }),
  body: fc.option(
    fc.constantFrom('', 'hello', '0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n', '5\r\nhello\r\n'),
  ),
})
type Request = typeof requests extends fc.Arbitrary<infer R> ? R : never

function headOf({ method, scheme, authority, path, more }: Request): readonly Field[] {
  const pseudo: readonly Field[] = [
    [':method', method],
    [':scheme', scheme],
    [':authority', authority],
    [':path', path],
  ]
  return [...pseudo, ...more]
}

/** RFC 9110 section 5.5, as the parser keeps it: other fields it leaves out. */
const valueForm = /^(?:[!-~\u0080-\u00ff](?:[\t -~\u0080-\u00ff]*[!-~\u0080-\u00ff])?)?$/

/** What must arrive of the agent's fields, if anything arrives. */
function expectedFields({ more }: Request): readonly Field[] {
  return more.filter(([name, value]) => passing.includes(name) && valueForm.test(value))
}

describe('a request over HTTP/2 has one reading or none', () => {
  test('an HTTP/1 upstream gets exactly one request, of the fields that were judged', async () => {
    await using relay = await startRelay({ gated: true })
    let forwarded = 0
    let refused = 0
    const property = fc.asyncProperty(requests, async (request) => {
      const agent = openFrames(relay.port)
      const before = relay.upstreamConnections()
      send(agent, request)
      await until(() => relay.upstreamConnections() > before || isRefused(agent))
      if (relay.upstreamConnections() === before) {
        refused += 1
      } else {
        const upstream = await relay.upstreamPeer()
        if (await isWhole(upstream, agent)) {
          forwarded += 1
          expectOneRequest(upstream.text(), request)
        }
        upstream.socket.end('HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n')
      }
      agent.socket.destroy()
      await until(() => relay.exchanges.count === 0)
    })
    await fc.assert(property, runs)
    expect(forwarded).toBeGreaterThan(50)
    expect(refused).toBeGreaterThan(50)
  }, 120_000)

  test('an HTTP/2 upstream gets the same list', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({
      gated: true,
      protocol: 'http2',
      upstreamUrl: upstream.url,
    })
    let forwarded = 0
    const property = fc.asyncProperty(requests, async (request) => {
      const agent = openFrames(relay.port)
      const before = upstream.streams.length
      send(agent, request)
      await until(() => upstream.streams.length > before || isRefused(agent))
      const served = upstream.streams[before]
      if (served) {
        await until(() => served.stream.readableEnded || served.stream.destroyed)
        if (!served.isAborted()) {
          forwarded += 1
          expectSameList(served, request)
        }
        if (!served.stream.destroyed) served.stream.respond({ ':status': 204 }, { endStream: true })
      }
      agent.socket.destroy()
      await until(() => relay.exchanges.count === 0)
    })
    await fc.assert(property, { ...runs, numRuns: 200 })
    expect(forwarded).toBeGreaterThan(50)
  }, 120_000)

  test('an agent gets the fields of an answer as the upstream sent them', async () => {
    await using upstream = await startHttp2Upstream()
    await using relay = await startRelay({ protocol: 'http2', upstreamUrl: upstream.url })
    await using agent = openAgent(relay.port)
    const property = fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(...passing), fc.constantFrom(...plainValues)), {
        maxLength: 8,
      }),
      async (list) => {
        const asked = agent.ask({})
        const arrived = new Promise<readonly string[]>((resolve) => {
          asked.stream.once('response', (_, _flags, raw) => resolve(raw))
        })
        const { stream } = await upstream.next()
        const given = list.filter(
          ([name], at) => at === list.findIndex(([other]) => other === name),
        )
        stream.respond([':status', '200', ...given.flat()], { endStream: true })
        const ours = [['via', '1.1 chaperone']]
        const got = pairs(await arrived).filter(([name]) => name !== 'date')
        expect(got).toEqual([[':status', '200'], ...given, ...ours])
      },
    )
    await fc.assert(property, { ...runs, numRuns: 100 })
  }, 60_000)
})

function send(agent: FramePeer, request: Request): void {
  const { body } = request
  agent.send(headersFrame(1, headOf(request), { endStream: body === null }))
  if (body !== null) agent.send(dataFrame(1, body, { endStream: true }))
}

function isRefused(agent: FramePeer): boolean {
  return agent.frames.some(
    (one) =>
      one.type === frameType.rstStream ||
      one.type === frameType.goaway ||
      one.payload.includes('"code":"request-refused"'),
  )
}

/** False when the agent's stream was reset: then half a request may stand at the upstream, and is never ended there. */
async function isWhole(upstream: Peer, agent: FramePeer): Promise<boolean> {
  await until(() => isRefused(agent) || endsRequest(upstream.text()))
  return endsRequest(upstream.text())
}

function endsRequest(text: string): boolean {
  const at = text.indexOf('\r\n\r\n')
  if (at === -1) return false
  return text.includes('transfer-encoding: chunked') ? text.endsWith('\r\n0\r\n\r\n') : true
}

/** A strict reading of the whole text: a request line, fields, chunks, and nothing behind. */
function expectOneRequest(text: string, request: Request): void {
  const end = text.indexOf('\r\n\r\n')
  const [line, ...rows] = text.slice(0, end).split('\r\n')
  expect(line).toBe(`${request.method} ${request.path} HTTP/1.1`)
  const arrived = rows.map((row): Field => {
    const colon = row.indexOf(': ')
    return [row.slice(0, colon), row.slice(colon + 2)]
  })
  const framing = request.body === null ? lengthOf(request) : [['transfer-encoding', 'chunked']]
  expect(arrived).toEqual([
    ['host', 'upstream.example'],
    ['connection', 'keep-alive'],
    ...expectedFields(request),
    ['via', '1.1 chaperone'],
    ...framing,
  ])
  expect(text.slice(end + 4)).toBe(chunked(request.body))
}

/** A method that means a body says when there is none. */
function lengthOf({ method }: Request): readonly Field[] {
  return method === 'POST' || method === 'PUT' ? [['content-length', '0']] : []
}

function expectSameList(served: Served, request: Request): void {
  expect(pairs(served.raw)).toEqual([
    [':method', request.method],
    [':scheme', 'http'],
    [':authority', 'upstream.example'],
    [':path', request.path],
    ...expectedFields(request),
    ...(takesTrailers(request) ? [['te', 'trailers']] : []),
    ['via', '1.1 chaperone'],
  ])
  expect(served.text()).toBe(request.body ?? '')
}

function chunked(body: string | null): string {
  if (body === null) return ''
  return `${body === '' ? '' : `${body.length.toString(16)}\r\n${body}\r\n`}0\r\n\r\n`
}

function takesTrailers({ more }: Request): boolean {
  return more.some(([name, value]) => name === 'te' && value === 'trailers')
}

function pairs(raw: readonly string[]): readonly (readonly string[])[] {
  return raw.flatMap((name, index) => (index % 2 === 0 ? [[name, raw[index + 1] ?? '']] : []))
}
