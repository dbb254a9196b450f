import { EventSourceParserStream } from 'eventsource-parser/stream'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { McpMessage } from '../../../policy/types.ts'
import type { Cut } from '../../../proxy/exchange.ts'
import { createMcpResponseFilter } from '../../../proxy/mcp/response-filter.ts'
import {
  ResponseFilterError,
  type ResponseFilter,
  type ResponseHead,
} from '../../../proxy/response-filter.ts'

const list: McpMessage = { type: 'request', id: 1, method: 'tools/list' }
const call: McpMessage = { type: 'tools/call', id: 'c1', tool: 'search', args: new Map() }
const json: ResponseHead = { status: 200, contentType: 'application/json' }
const sse: ResponseHead = { status: 200, contentType: 'text/event-stream' }
const cut: Cut = { code: 'task-terminated', atMonotonicMs: 0 }

function filterFor(message: McpMessage, maxBytes = 4096): ResponseFilter {
  return createMcpResponseFilter({
    message,
    allowTool: (tool) => !tool.startsWith('hidden'),
    decisionId: 'd1',
    txn: 'T-42',
    maxBytes,
  })
}

interface Run {
  readonly message?: McpMessage
  readonly head?: ResponseHead
}

function run(chunks: readonly (string | Buffer)[], options: Run = {}): string {
  const { message = list, head = json } = options
  const filter = filterFor(message)
  filter.head(head)
  const out = chunks.map((chunk) => filter.chunk(Buffer.from(chunk)))
  return Buffer.concat([...out, filter.end()].filter((bytes) => bytes !== undefined)).toString()
}

function split(text: string, cuts: readonly number[]): readonly Buffer[] {
  const bytes = Buffer.from(text)
  const at = [0, ...cuts.map((cutAt) => cutAt % (bytes.length + 1)), bytes.length]
  const sorted = at.toSorted((a, b) => a - b)
  return sorted.slice(1).map((end, index) => bytes.subarray(sorted[index], end))
}

function tools(...names: readonly string[]) {
  return {
    jsonrpc: '2.0',
    id: 1,
    result: { tools: names.map((name) => ({ name })), nextCursor: 'n' },
  }
}

/** What gets out of a filtered list stream before its end, or before the filter gives up. */
function visible(chunks: readonly Buffer[]): string {
  const filter = filterFor(list)
  filter.head(sse)
  let out = ''
  try {
    for (const chunk of chunks) out += filter.chunk(chunk)?.toString() ?? ''
    return out + (filter.end()?.toString() ?? '')
  } catch (error) {
    if (error instanceof ResponseFilterError) return out
    throw error
  }
}

/** What a standard client takes from an event stream. */
async function eventsOf(stream: string): Promise<readonly unknown[]> {
  const events = new Blob([stream])
    .stream()
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream())
  const data: unknown[] = []
  for await (const event of events) data.push(event.data === '' ? '' : JSON.parse(event.data))
  return data
}

describe('createMcpResponseFilter() on a JSON answer', () => {
  test('createMcpResponseFilter() leaves out what the task may not call or has no name', () => {
    const filter = filterFor(list)
    expect(filter.head(json)).toBe('rewrite')
    expect(filter.final(cut)).toBeUndefined()
    const body = JSON.stringify(tools('search', 'hidden-delete', 'read')).replace(
      '[',
      '[{},null,{"name":1},',
    )
    expect(JSON.parse(run([body.slice(0, 30), body.slice(30)]))).toEqual(tools('search', 'read'))
  })

  test('createMcpResponseFilter() forbids a shared cache when the server allows one', () => {
    const body = { id: 1, result: { tools: [], ttlMs: 60_000, cacheScope: 'public' } }
    expect(JSON.parse(run([JSON.stringify(body)]))).toEqual({
      id: 1,
      result: { tools: [], ttlMs: 0, cacheScope: 'private' },
    })
  })

  test('createMcpResponseFilter() keeps the bytes of an answer without tools', () => {
    const error = '{"jsonrpc":"2.0", "id":1,"error":{"code":-32600,"message":"no"}}'
    expect(run([error])).toBe(error)
    expect(run([])).toBe('')
  })

  test.each([
    ['not JSON', '<html>', 'not JSON'],
    ['cut short', '{"result":{"tools":[{"name":"hidden"}', 'not JSON'],
    ['a batch', `[${JSON.stringify(tools('hidden'))}]`, 'not one JSON-RPC message'],
    ['tools in an object', '{"result":{"tools":{"name":"hidden"}}}', 'tools is not an array'],
    ['tools twice', '{"result":{"tools":[],"tools":[{"name":"hidden"}]}}', 'stands twice'],
    ['a tool name twice', '{"result":{"tools":[{"name":"a","name":"hidden"}]}}', 'stands twice'],
    ['too long', JSON.stringify(tools('x'.repeat(5000))), 'longer than 4096 bytes'],
  ])('createMcpResponseFilter() throws when a list is %s', (_what, body, reason) => {
    for (const attempt of [() => run([body]), () => run([`data: ${body}\n\n`], { head: sse })]) {
      expect(attempt).toThrow(ResponseFilterError)
      expect(attempt).toThrow(reason)
    }
  })

  test.each(['text/html', ''])(
    'createMcpResponseFilter() throws on a list of type "%s"',
    (type) => {
      const head = { status: 200, contentType: type }
      expect(() => run(['x'], { head })).toThrow('neither JSON nor an event stream')
      expect(() => run([], { head })).toThrow(ResponseFilterError)
      expect(filterFor(list).head({ ...head, status: 202 })).toBe('pass')
    },
  )

  test('createMcpResponseFilter() filters a list with any status that clients take for success', () => {
    const head = { status: 203, contentType: 'application/json' }
    expect(run([JSON.stringify(tools('hidden'))], { head })).not.toContain('hidden')
  })

  test.each([
    ['a server error', list, { status: 500, contentType: 'application/json' }],
    ['a redirect', call, { status: 302, contentType: 'text/event-stream' }],
    ['JSON for a tool call', call, json],
    ['a notification', { type: 'notification', method: 'notifications/x' }, sse],
    ['a response', { type: 'response', id: 1 }, sse],
  ] as const)('createMcpResponseFilter() passes %s and has no final', (_what, message, head) => {
    const filter = filterFor(message)
    expect(filter.head(head)).toBe('pass')
    const chunk = Buffer.from('data: {"result":{"tools":[')
    expect(filter.chunk(chunk)).toBe(chunk)
    expect(filter.final(cut)).toBeUndefined()
    expect(filter.end()).toBeUndefined()
  })
})

describe('createMcpResponseFilter() on an event stream', () => {
  const progress = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"é":"☃"}}'
  const stream = (eol: string) =>
    [
      ': hello',
      '',
      'id: 0',
      'data:',
      '',
      'event: message',
      `data: ${progress}`,
      '',
      'id: 7',
      'event: message',
      ...JSON.stringify(tools('search', 'hidden-delete'), null, 1)
        .split('\n')
        .map((line) => `data:${line}`),
      'retry: 5',
      '',
      '',
    ].join(eol)

  test('createMcpResponseFilter() replaces the data of a list event and keeps the rest', () => {
    expect(run([stream('\n')], { head: sse })).toBe(
      [
        ': hello\n\nid: 0\ndata:\n\n',
        `event: message\ndata: ${progress}\n\n`,
        `id: 7\nevent: message\ndata: ${JSON.stringify(tools('search'))}\nretry: 5\n\n`,
      ].join(''),
    )
  })

  test('createMcpResponseFilter() gives the same bytes wherever the chunks are cut', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('\n', '\r\n', '\r'),
        fc.array(fc.nat(), { maxLength: 30 }),
        fc.constantFrom(list, call),
        (eol, cuts, message) => {
          const text = stream(eol)
          const whole = run([text], { head: sse, message })
          expect(run(split(text, cuts), { head: sse, message })).toBe(whole)
        },
      ),
    )
  })

  test('createMcpResponseFilter() never lets a hidden name through, whatever the stream', () => {
    const name = fc.constantFrom('search', 'hidden-a', 'hidden-b')
    const line = fc.oneof(
      fc.array(name).map((names) => `data: ${JSON.stringify(tools(...names))}`),
      fc.array(name).map((names) => `\uFEFF\uFEFFdata:${JSON.stringify(tools(...names))}`),
      fc.constantFrom('event: message', 'event: other', 'id: 1', 'data', 'data: ', ': x', ''),
    )
    const body = fc.array(fc.tuple(line, fc.constantFrom('\n', '\r\n', '\r', '\n\n', '\r\n\r\n')))
    fc.assert(
      fc.property(body, fc.array(fc.nat(), { maxLength: 20 }), (lines, cuts) => {
        expect(visible(split(lines.flat().join(''), cuts))).not.toContain('hidden')
      }),
      { numRuns: 500 },
    )
  })

  test('createMcpResponseFilter() throws when a list stream is not text', () => {
    const encoded = Buffer.from([0x1f, 0x8b, 0x08, 0x0a, 0x0a])
    expect(() => run([encoded], { head: sse })).toThrow('not UTF-8')
  })

  test('createMcpResponseFilter() drops an unfinished event when a list stream ends', () => {
    const event = `data: ${JSON.stringify(tools('hidden'))}\n`
    expect(run([`: x\n\n${event}`], { head: sse })).toBe(': x\n\n')
    expect(run([`: x\n\n${event}`], { head: sse, message: call })).toBe(`: x\n\n${event}`)
  })

  test('createMcpResponseFilter() sends the second half of CR LF on at once', () => {
    const filter = filterFor(call)
    filter.head(sse)
    expect(filter.chunk(Buffer.from('data: 1\r\n\r'))?.toString()).toBe('data: 1\r\n\r')
    expect(filter.chunk(Buffer.from('\n'))?.toString()).toBe('\n')
  })
})

describe('final()', () => {
  const half = `data: ${JSON.stringify({ jsonrpc: '2.0', method: 'notifications/progress' })}\n\ndata: {"jsonrpc":"2.0","id":"c1","res`

  test('final() gives a client one whole last message wherever the stream is cut', async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom('\n', '\r\n', '\r'), fc.nat(), async (eol, at) => {
        const filter = filterFor(call)
        filter.head(sse)
        const text = half.replaceAll('\n', eol)
        const out =
          filter.chunk(Buffer.from(text.slice(0, at % (text.length + 1))))?.toString() ?? ''
        const events = await eventsOf(`${out}${filter.final(cut)?.toString()}`)
        expect(events.at(-1)).toMatchObject({
          id: 'c1',
          result: {
            isError: true,
            content: [{ type: 'text', text: expect.stringContaining('revoked') }],
            _meta: {
              'chaperone/denial': { code: 'task-terminated', decision_id: 'd1', txn: 'T-42' },
            },
          },
        })
        expect(events.length).toBeLessThanOrEqual(2)
      }),
    )
  })

  test('final() is a JSON-RPC error, once, when the request is no tool call', async () => {
    const filter = filterFor({ type: 'request', id: 9, method: 'prompts/list' })
    expect(filter.head(sse)).toBe('rewrite')
    const events = await eventsOf(filter.final(cut)?.toString() ?? '')
    expect(events).toMatchObject([{ id: 9, error: { code: -32011 } }])
    expect(filter.final(cut)).toBeUndefined()
  })

  test('final() is undefined when the request was already answered', () => {
    const filter = filterFor(call)
    filter.head(sse)
    filter.chunk(Buffer.from('data: {"jsonrpc":"2.0","id":"c1",\ndata: "result":{}}\n\n'))
    expect(filter.final(cut)).toBeUndefined()
  })

  test.each([
    ['a request of the server has the same id', '{"id":"c1","method":"sampling/createMessage"}'],
    ['another id was answered', '{"id":"c2","result":{}}'],
    ['the event is no JSON', 'c1'],
  ])('final() is still due when %s', (_what, data) => {
    const filter = filterFor(call)
    filter.head(sse)
    filter.chunk(Buffer.from(`data: ${data}\n\n`))
    expect(filter.final(cut)?.toString()).toMatch(/^\n\nevent: message\ndata: \{.*\}\n\n$/)
  })

  test('final() is undefined when an event over the limit goes out unheld', () => {
    const big = `data: ${'x'.repeat(100)}`
    for (const chunks of [[big, 'yy\n\n'], [`${big}yy\n\n`], `${big}yy\n\n`.split('')]) {
      const filter = filterFor(call, 64)
      filter.head(sse)
      const out = chunks.map((chunk) => filter.chunk(Buffer.from(chunk))?.toString() ?? '')
      expect(out.join('')).toBe(`${big}yy\n\n`)
      expect(filter.final(cut)).toBeUndefined()
    }
  })
})
