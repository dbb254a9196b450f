import { createHash } from 'node:crypto'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isDenial } from '../../../policy/denial.ts'
import { parseMcpMessage, type McpHeaders } from '../../../proxy/mcp/message.ts'

const json: McpHeaders = {
  contentType: 'application/json',
  mcpMethod: undefined,
  mcpName: undefined,
}

function parse(body: unknown, headers: Partial<McpHeaders> = {}) {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  return parseMcpMessage(Buffer.from(text), {
    maxBytes: 256 * 1024,
    maxDepth: 16,
    headers: { ...json, ...headers },
  })
}

function message(body: unknown, headers: Partial<McpHeaders> = {}) {
  const parsed = parse(body, headers)
  if (isDenial(parsed)) throw new Error(`Refused: ${parsed.detail}`)
  return parsed.message
}

function refusal(body: unknown, headers: Partial<McpHeaders> = {}): string {
  const parsed = parse(body, headers)
  if (!isDenial(parsed)) throw new Error('Expected a refusal')
  expect(parsed.code).toBe('request-refused')
  return parsed.detail
}

function call(params: unknown, id: unknown = 1) {
  return { jsonrpc: '2.0', id, method: 'tools/call', params }
}

function outcome(body: string) {
  const parsed = parse(body)
  return isDenial(parsed) ? parsed.code : parsed.sha256.length
}

const many = (count: number) => Array.from({ length: count }, () => 0)

function args(given: unknown) {
  const parsed = message(call({ name: 't', arguments: given }))
  if (parsed.type !== 'tools/call') throw new Error('Expected a tool call')
  return Object.fromEntries(parsed.args)
}

describe('parseMcpMessage()', () => {
  test('parseMcpMessage() tells the four kinds of message apart', () => {
    expect(message(call({ name: 'search' }, 'a'))).toEqual({
      type: 'tools/call',
      id: 'a',
      tool: 'search',
      args: new Map(),
    })
    expect(message({ jsonrpc: '2.0', id: 7, method: 'tools/list' })).toEqual({
      type: 'request',
      id: 7,
      method: 'tools/list',
    })
    expect(message({ jsonrpc: '2.0', method: 'notifications/initialized' })).toEqual({
      type: 'notification',
      method: 'notifications/initialized',
    })
    expect(message({ jsonrpc: '2.0', id: 0, result: {} })).toEqual({ type: 'response', id: 0 })
    expect(message({ jsonrpc: '2.0', id: 0, error: { code: 1 } }).type).toBe('response')
  })

  test('parseMcpMessage() gives the digest of the bytes when it accepts them', () => {
    const body = '{"jsonrpc":"2.0", "id":1,"method":"ping"}'
    expect(parse(body)).toMatchObject({
      sha256: createHash('sha256').update(body).digest('hex'),
    })
  })

  test('parseMcpMessage() flattens arguments to pointers when they are nested', () => {
    expect(
      args({ a: { b: 'x', 'c/d': 1 }, 'e~f': [true, [null]], '': 2, empty: {}, none: [] }),
    ).toEqual({
      'a/b': 'x',
      'a/c~1d': 1,
      'e~0f/0': true,
      'e~0f/1/0': null,
      '': 2,
    })
  })

  test('parseMcpMessage() gives every scalar of the arguments exactly once', () => {
    const name = fc.string({ maxLength: 6 }).filter((text) => /^[a-z/~0-9]*$/.test(text))
    const scalar = fc.oneof(fc.boolean(), fc.constant(null), fc.integer(), fc.string())
    const { tree } = fc.letrec((tie) => ({
      tree: fc.dictionary(name, fc.oneof({ maxDepth: 3 }, scalar, tie('tree')), { maxKeys: 4 }),
    }))
    const leaves = (value: unknown): readonly unknown[] =>
      typeof value === 'object' && value !== null ? Object.values(value).flatMap(leaves) : [value]
    fc.assert(
      fc.property(tree, (given) => {
        const flat = args(given)
        expect(Object.keys(flat)).toHaveLength(leaves(given).length)
        expect(Object.values(flat).map(String).toSorted()).toEqual(
          leaves(given).map(String).toSorted(),
        )
      }),
    )
  })

  test('parseMcpMessage() refuses arguments beyond its limits and never judges a prefix', () => {
    expect(Object.keys(args({ a: many(512) }))).toHaveLength(512)
    expect(refusal(call({ name: 't', arguments: { a: many(513) } }))).toContain(
      'more than 512 arguments',
    )
    expect(args({ a: 'x'.repeat(65_536) })['a']).toHaveLength(65_536)
    expect(refusal(call({ name: 't', arguments: { a: 'x'.repeat(65_537) } }))).toContain(
      'longer than 65536 characters',
    )
    expect(refusal(call({ name: 't', arguments: { ['k'.repeat(65_536)]: 1 } }))).toContain(
      'name of an argument is too long',
    )
  })

  test.each([
    ['a batch', [{ jsonrpc: '2.0', id: 1, method: 'ping' }], 'not one JSON-RPC message'],
    ['no version', { id: 1, method: 'ping' }, 'jsonrpc is not'],
    ['another version', { jsonrpc: '1.0', id: 1, method: 'ping' }, 'jsonrpc is not'],
    ['a null id', { jsonrpc: '2.0', id: null, method: 'ping' }, 'neither text nor'],
    ['a fractional id', { jsonrpc: '2.0', id: 1.5, method: 'ping' }, 'neither text nor'],
    ['a long id', { jsonrpc: '2.0', id: 'x'.repeat(257), method: 'ping' }, 'neither text nor'],
    ['an unknown member', { jsonrpc: '2.0', id: 1, method: 'ping', tool: 1 }, 'no meaning'],
    ['a call with a result', { jsonrpc: '2.0', id: 1, method: 'ping', result: 1 }, 'no meaning'],
    ['a response with params', { jsonrpc: '2.0', id: 1, result: 1, params: {} }, 'no meaning'],
    ['two answers', { jsonrpc: '2.0', id: 1, result: 1, error: {} }, 'nor one answer'],
    ['no answer', { jsonrpc: '2.0', id: 1 }, 'nor one answer'],
    ['an unsolicited null answer', { jsonrpc: '2.0', id: null, error: {} }, 'neither text nor'],
    ['a method with a space', { jsonrpc: '2.0', id: 1, method: 'tools/call ' }, 'not a method'],
    ['a method that is no text', { jsonrpc: '2.0', id: 1, method: 3 }, 'not a method'],
    ['params in an array', { jsonrpc: '2.0', id: 1, method: 'ping', params: [] }, 'not an object'],
    ['a call without id', { jsonrpc: '2.0', method: 'tools/call', params: {} }, 'does not fit'],
    [
      'a notification with id',
      { jsonrpc: '2.0', id: 1, method: 'notifications/x' },
      'does not fit',
    ],
    ['another case', { jsonrpc: '2.0', id: 1, method: 'Tools/Call' }, 'in another case'],
    ['no params', { jsonrpc: '2.0', id: 1, method: 'tools/call' }, 'params.name'],
    ['no tool name', call({}), 'params.name'],
    ['an empty tool name', call({ name: '' }), 'params.name'],
    ['a long tool name', call({ name: 'x'.repeat(257) }), 'params.name'],
    ['a tool name with a line break', call({ name: 'a\nb' }), 'control character'],
    ['null arguments', call({ name: 't', arguments: null }), 'params.arguments'],
    ['arguments in an array', call({ name: 't', arguments: [] }), 'params.arguments'],
  ])('parseMcpMessage() refuses %s', (_what, body, reason) => {
    expect(refusal(body)).toContain(reason)
  })

  test('parseMcpMessage() refuses duplicate names at any depth, in any case', () => {
    const names = fc.constantFrom(
      ['name', 'name'],
      ['name', 'NAME'],
      ['a', '\\u0061'],
      ['k', '\u212A'],
    )
    fc.assert(
      fc.property(names, fc.nat({ max: 10 }), ([first, second], depth) => {
        const twice = `{"${first}":1,"${second}":2}`
        const nested = `${'{"x":'.repeat(depth)}${twice}${'}'.repeat(depth)}`
        const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"y":${nested}}}}`
        expect(refusal(body)).toContain('a member name stands twice')
      }),
    )
    expect(refusal('{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}')).toContain(
      'stands twice',
    )
  })

  test('parseMcpMessage() refuses a body beyond its limits', () => {
    const deep = `${'['.repeat(14)}${']'.repeat(14)}`
    const body = `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":${deep}}}`
    expect(message(body).type).toBe('request')
    expect(refusal(body.replace(deep, `[${deep}]`))).toContain('nested deeper than 16')
    expect(refusal(call({ name: 't', arguments: { a: 'x'.repeat(256 * 1024) } }))).toContain(
      'longer than 262144 bytes',
    )
  })

  test.each([
    'application/json',
    'Application/JSON; charset=utf-8',
    'application/json;charset="UTF-8"',
  ])('parseMcpMessage() accepts content type %s', (contentType) => {
    expect(message({ jsonrpc: '2.0', id: 1, method: 'ping' }, { contentType }).type).toBe('request')
  })

  test.each([
    undefined,
    'text/plain',
    'application/json; charset=utf-16',
    'application/json, text/plain',
    'application/jsonx',
  ])('parseMcpMessage() refuses content type %s', (contentType) => {
    const reason = refusal({ jsonrpc: '2.0', id: 1, method: 'ping' }, { contentType })
    expect(reason).toContain('content type is not application/json')
  })

  test('parseMcpMessage() accepts header fields that agree with the body', () => {
    const named = call({ name: 'search' })
    expect(message(named, { mcpMethod: 'tools/call', mcpName: 'search' }).type).toBe('tools/call')
    const encoded = `=?base64?${Buffer.from('süche').toString('base64')}?=`
    expect(message(call({ name: 'süche' }), { mcpName: encoded }).type).toBe('tools/call')
    const read = { jsonrpc: '2.0', id: 1, method: 'resources/read', params: { uri: 'file:///a' } }
    expect(message(read, { mcpMethod: 'resources/read', mcpName: 'file:///a' }).type).toBe(
      'request',
    )
  })

  test.each([
    ['another method', { mcpMethod: 'tools/list' }, 'Mcp-Method'],
    ['the method in another case', { mcpMethod: 'Tools/call' }, 'Mcp-Method'],
    ['the method twice', { mcpMethod: 'tools/call, tools/call' }, 'Mcp-Method'],
    ['another name', { mcpName: 'delete' }, 'Mcp-Name'],
    ['an empty name', { mcpName: '' }, 'Mcp-Name'],
    ['another encoded name', { mcpName: '=?base64?ZGVsZXRl?=' }, 'Mcp-Name'],
    ['loose base64', { mcpName: '=?base64?c2VhcmNo=?=' }, 'Mcp-Name'],
  ])('parseMcpMessage() refuses header fields with %s', (_what, headers, reason) => {
    expect(refusal(call({ name: 'search' }), headers)).toContain(`${reason} does not match`)
  })

  test('parseMcpMessage() refuses header fields when the body has nothing like them', () => {
    const answer = { jsonrpc: '2.0', id: 1, result: {} }
    expect(refusal(answer, { mcpMethod: 'tools/call' })).toContain('Mcp-Method')
    expect(
      refusal({ jsonrpc: '2.0', id: 1, method: 'tools/list' }, { mcpName: 'search' }),
    ).toContain('Mcp-Name')
  })

  test('parseMcpMessage() never quotes the input in a refusal', () => {
    const canary = 'Zq7canary'
    for (const body of [
      call({ name: `${canary}\n` }),
      call({ name: canary, arguments: canary }),
      { jsonrpc: '2.0', id: 1, method: `${canary} ` },
      { jsonrpc: canary },
      { jsonrpc: '2.0', id: 1, method: 'ping', [canary]: 1 },
      `{"${canary}":1,"${canary}":2}`,
      canary,
    ]) {
      expect(refusal(body)).not.toContain(canary)
    }
    const named = call({ name: 't' })
    expect(refusal(named, { mcpName: canary })).not.toContain(canary)
    expect(refusal(named, { contentType: canary })).not.toContain(canary)
  })

  test('parseMcpMessage() gives a message or a refusal for any bytes', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), (body) => {
        expect(['request-refused', 64]).toContain(outcome(body))
      }),
    )
  })
})
