import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { grantAllows, isWithinLocations, matchesDestination } from '../../policy/destination.ts'
import { canonicalOrigin, canonicalUrl, coversOrigin } from '../../policy/location.ts'
import { isPathPattern, matchesPath } from '../../policy/path-pattern.ts'
import type {
  ArgumentConstraint,
  ArgumentValue,
  Destination,
  Grant,
  McpMessage,
  Operation,
  Upstream,
} from '../../policy/types.ts'

const rest: Upstream = {
  name: 'api',
  kind: 'rest',
  origin: 'https://api.example.org',
  sensitivity: 'internal',
}
const mcp: Upstream = { ...rest, name: 'mcp', kind: 'mcp' }

function http(method: string, path: string, hasQuery = false): Operation {
  return { kind: 'http', method, path, hasQuery }
}

describe('matchesPath()', () => {
  test.each([
    [true, '/v1/x', '/v1/x'],
    [true, '/', '/'],
    [true, '/v1/', '/v1/'],
    [true, '/v1/*/y', '/v1/anything/y'],
    [true, '/v1/**', '/v1/x'],
    [true, '/v1/**', '/v1/x/y/z'],
    [true, '/v1/**', '/v1/'],
    [true, '/**', '/'],
    [true, '/a b/é', '/a%20b/%C3%A9'],
    [true, '/v1/x', '/v1/%78'],
    [true, '/v1/100', '/v1/%31%30%30'],
    [false, '/v1/x', '/v1/x/'],
    [false, '/v1/x', '/v1/X'],
    [false, '/v1/**', '/v1'],
    [false, '/v1/**', '/v10/x'],
    [false, '/v1/*', '/v1/x/y'],
    [false, '/v1/*', '/v1/'],
    [false, '/pay/**', '/payroll/x'],
    [false, '/v1/x', '/v1/%2578'],
    [false, '/v1/*', '/v1/a%2Fb'],
    [false, '/v1/**', '/v1/a%2fb'],
    [false, '/v1/**', '/v1/a%5Cb'],
    [false, '/v1/**', '/v1/a\\b'],
    [false, '/v1/**', '/v1/a%00'],
    [false, '/v1/**', '/v1/a;b'],
    [false, '/v1/**', '/v1/../x'],
    [false, '/v1/**', '/v1/%2e%2E/x'],
    [false, '/v1/**', '/v1/.'],
    [false, '/v1/**', '/v1/%'],
    [false, '/v1/**', '/v1/%C3'],
    [false, '/v1/**', '/v1/%C0%AF'],
    [false, '/**', 'v1'],
    [false, '/**', '*'],
    [false, '/**', ''],
    [false, '/**', 'https://evil.example/v1'],
    [false, '/a/**/b', '/a/x/b'],
  ])('is %s for %s and %s', (expected, pattern, path) => {
    expect(matchesPath(pattern, path)).toBe(expected)
  })

  const segment = fc.string({ unit: fc.constantFrom('a', 'b', '%', '/', '.', ' '), maxLength: 3 })
  const path = fc
    .array(segment, { minLength: 1, maxLength: 4 })
    .map((segments) => `/${segments.map((text) => encodeURIComponent(text)).join('/')}`)

  test('never takes an encoded slash or a dot segment, whatever the pattern', () => {
    const check = fc.check(
      fc.property(path, (text) => {
        const isBad = text.split('/').some((part) => /^\.\.?$/.test(part) || part.includes('%2F'))
        return matchesPath('/**', text) === !isBad
      }),
      { numRuns: 3_000 },
    )
    expect(check.counterexample).toBe(null)
  })

  test('stays inside the directory that the pattern names', () => {
    const check = fc.check(
      fc.property(path, (text) => {
        const url = new URL(`https://host${text}`)
        const isInside = decodeURIComponent(url.pathname).startsWith('/a/')
        return !matchesPath('/a/**', text) || isInside
      }),
      { numRuns: 3_000 },
    )
    expect(check.counterexample).toBe(null)
  })
})

test.each([
  [true, '/'],
  [true, '/v1/x'],
  [true, '/v1/'],
  [true, '/v1/*/y/**'],
  [true, '/**'],
  [false, ''],
  [false, 'v1'],
  [false, '/v1/*x'],
  [false, '/v1/x*'],
  [false, '/v1/***'],
  [false, '/**/x'],
  [false, '/a//b'],
  [false, '/a/../b'],
  [false, '/a%20b'],
  [false, '/a?x=1'],
  [false, '/a#b'],
  [false, '/a;b'],
  [false, '/a\\b'],
  [false, '/a\nb'],
])('isPathPattern() is %s for %j', (expected, text) => {
  expect(isPathPattern(text)).toBe(expected)
})

test.each([
  ['https://api.example.org', 'https://api.example.org'],
  ['https://api.example.org:443', 'https://api.example.org'],
  ['http://127.0.0.1:80', 'http://127.0.0.1'],
  ['http://127.0.0.1:8080', 'http://127.0.0.1:8080'],
  ['https://[::1]:8443', 'https://[::1]:8443'],
  ['https://*.example.org', 'https://*.example.org'],
  ['https://*.example.org:8443', 'https://*.example.org:8443'],
  ['https://API.example.org', undefined],
  ['HTTPS://api.example.org', undefined],
  ['https://api.example.org/', undefined],
  ['https://api.example.org/v1', undefined],
  ['https://api.example.org.', undefined],
  ['https://u@api.example.org', undefined],
  ['https://api.example.org:0', undefined],
  ['https://api.example.org:99999', undefined],
  ['https://api.example.org?x', undefined],
  ['https://*', undefined],
  ['https://*.', undefined],
  ['https://a.*.org', undefined],
  ['https://*.*.org', undefined],
  ['https://*api.example.org', undefined],
  ['https://*.1.2.3', undefined],
  ['https://*.2.3.4.5', undefined],
  ['https://*.[::1]', undefined],
  ['https://127.1', undefined],
  ['https://2130706433', undefined],
  ['https://0x7f.0.0.1', undefined],
  ['https://[0::1]', undefined],
  ['https://ex%61mple.org', undefined],
  ['https://exämple.org', undefined],
  ['wss://api.example.org', undefined],
  ['ftp://api.example.org', undefined],
  ['api.example.org', undefined],
])('canonicalOrigin() reads %s as %s', (text, expected) => {
  expect(canonicalOrigin(text, ['https', 'http'])).toBe(expected)
})

test.each([
  ['https://host/mcp', 'https://host/mcp'],
  ['https://host:443/mcp/v1/', 'https://host/mcp/v1/'],
  ['https://host', 'https://host/'],
  ['https://*.host.org/mcp', undefined],
  ['https://host/mcp?x=1', undefined],
  ['https://host/mcp#x', undefined],
  ['https://host/a/../mcp', undefined],
  ['https://host//mcp', undefined],
  ['https://host/m%63p', undefined],
  ['https://host/*', undefined],
  ['wss://host/mcp', undefined],
])('canonicalUrl() reads %s as %s', (text, expected) => {
  expect(canonicalUrl(text)).toBe(expected)
})

test.each([
  [true, 'https://a.example.org', 'https://a.example.org'],
  [true, 'https://*.example.org', 'https://a.example.org'],
  [true, 'https://*.example.org:8443', 'https://a.example.org:8443'],
  [true, 'https://*.example.org', 'https://*.example.org'],
  [false, 'https://*.example.org', 'https://example.org'],
  [false, 'https://*.example.org', 'https://a.b.example.org'],
  [false, 'https://*.example.org', 'https://aexample.org'],
  [false, 'https://*.example.org', 'https://a.example.org.evil.org'],
  [false, 'https://*.example.org', 'http://a.example.org'],
  [false, 'https://*.example.org', 'https://a.example.org:8443'],
  [false, 'https://*.example.org', 'https://.example.org'],
  [false, 'https://a.example.org', 'https://*.example.org'],
  [false, 'https://*.a.example.org', 'https://*.example.org'],
  [false, 'https://api.example.org', 'https://api.example.org.evil.org'],
])('coversOrigin() is %s for %s and %s', (expected, pattern, origin) => {
  expect(coversOrigin(pattern, origin)).toBe(expected)
})

describe('matchesDestination() of http_api', () => {
  const entry: Destination = {
    type: 'http_api',
    locations: ['https://api.example.org'],
    actions: ['GET', 'POST'],
    paths: ['/v1/**'],
  }

  test.each<[boolean, string, Partial<typeof entry>, Operation, Partial<Upstream>]>([
    [true, 'what it names', {}, http('GET', '/v1/x'), {}],
    [true, 'a query by default', {}, http('GET', '/v1/x', true), {}],
    [true, 'a wildcard host', { locations: ['https://*.example.org'] }, http('GET', '/v1/x'), {}],
    [false, 'a query when denied', { query: 'deny' }, http('GET', '/v1/x', true), {}],
    [false, 'another method', {}, http('DELETE', '/v1/x'), {}],
    [false, 'HEAD for GET', {}, http('HEAD', '/v1/x'), {}],
    [false, 'a method in lower case', {}, http('get', '/v1/x'), {}],
    [false, 'another path', {}, http('GET', '/v2/x'), {}],
    [false, 'another host', {}, http('GET', '/v1/x'), { origin: 'https://b.example.org' }],
    [false, 'another scheme', {}, http('GET', '/v1/x'), { origin: 'http://api.example.org' }],
    [false, 'another port', {}, http('GET', '/v1/x'), { origin: 'https://api.example.org:8443' }],
    [false, 'empty locations', { locations: [] }, http('GET', '/v1/x'), {}],
    [false, 'empty actions', { actions: [] }, http('GET', '/v1/x'), {}],
    [false, 'empty paths', { paths: [] }, http('GET', '/v1/x'), {}],
    [
      false,
      'a WebSocket',
      {},
      { kind: 'websocket', method: 'GET', path: '/v1/x', hasQuery: false },
      {},
    ],
    [
      false,
      'a tool call at the same address',
      { paths: ['/**'] },
      toolCall('send', {}),
      { kind: 'mcp' },
    ],
  ])('is %s for %s', (expected, _, members, operation, upstream) => {
    const target = { operation, upstream: { ...rest, ...upstream } }
    expect(matchesDestination({ ...entry, ...members }, target)).toBe(expected)
  })
})

test.each<[boolean, string, string]>([
  [true, 'wss://api.example.org', 'https://api.example.org'],
  [true, 'ws://127.0.0.1:8080', 'http://127.0.0.1:8080'],
  [true, 'wss://*.example.org', 'https://api.example.org'],
  [false, 'ws://api.example.org', 'https://api.example.org'],
  [false, 'wss://b.example.org', 'https://api.example.org'],
])('matchesDestination() of ws is %s for %s and %s', (expected, location, origin) => {
  const entry: Destination = { type: 'ws', locations: [location], paths: ['/live'] }
  const upstream = { ...rest, origin }
  const operation: Operation = { kind: 'websocket', method: 'GET', path: '/live', hasQuery: false }
  expect(matchesDestination(entry, { operation, upstream })).toBe(expected)
  const other: Operation = { ...operation, path: '/other' }
  expect(matchesDestination(entry, { operation: other, upstream })).toBe(false)
  expect(matchesDestination(entry, { operation: http('GET', '/live'), upstream })).toBe(false)
})

function toolCall(tool: string, args: Readonly<Record<string, ArgumentValue>>): Operation {
  return mcpOperation({ type: 'tools/call', id: 1, tool, args: new Map(Object.entries(args)) })
}

function mcpOperation(message: McpMessage, path = '/mcp'): Operation {
  return { kind: 'mcp', method: 'POST', path, hasQuery: false, message }
}

describe('matchesDestination() of mcp_server', () => {
  const entry: Extract<Destination, { type: 'mcp_server' }> = {
    type: 'mcp_server',
    locations: ['https://api.example.org/mcp'],
    tools: ['create_issue', 'read_*'],
  }

  test.each<[boolean, string, Operation]>([
    [true, 'an exact tool', toolCall('create_issue', {})],
    [true, 'a tool under a prefix', toolCall('read_file', {})],
    [true, 'another request', mcpOperation({ type: 'request', id: 1, method: 'tools/list' })],
    [true, 'a notification', mcpOperation({ type: 'notification', method: 'x' })],
    [true, 'a response', mcpOperation({ type: 'response', id: 1 })],
    [true, 'the GET of its stream', http('GET', '/mcp')],
    [true, 'the DELETE of its session', http('DELETE', '/mcp')],
    [false, 'a POST that was not read as MCP', http('POST', '/mcp')],
    [false, 'another tool', toolCall('delete_issue', {})],
    [false, 'a longer tool', toolCall('create_issue2', {})],
    [false, 'a tool in upper case', toolCall('CREATE_ISSUE', {})],
    [false, 'another path', mcpOperation({ type: 'response', id: 1 }, '/mcp2')],
    [false, 'a path below', mcpOperation({ type: 'response', id: 1 }, '/mcp/x')],
    [false, 'a query', { ...toolCall('create_issue', {}), hasQuery: true }],
    [false, 'a WebSocket', { kind: 'websocket', method: 'GET', path: '/mcp', hasQuery: false }],
  ])('is %s for %s', (expected, _, operation) => {
    expect(matchesDestination(entry, { operation, upstream: mcp })).toBe(expected)
  })

  test('is false for an upstream that is not MCP, or another host', () => {
    const operation = http('GET', '/mcp')
    expect(matchesDestination(entry, { operation, upstream: rest })).toBe(false)
    const elsewhere = { ...mcp, origin: 'https://b.example.org' }
    expect(matchesDestination(entry, { operation, upstream: elsewhere })).toBe(false)
  })

  test('is false for every tool when there are none', () => {
    const target = { operation: toolCall('create_issue', {}), upstream: mcp }
    expect(matchesDestination({ ...entry, tools: [] }, target)).toBe(false)
  })

  test.each<[boolean, ArgumentConstraint, ArgumentValue | undefined]>([
    [true, { enum: ['a', 1, true] }, 'a'],
    [true, { enum: ['a', 1, true] }, 1],
    [true, { enum: ['a', 1, true] }, true],
    [false, { enum: ['a', 1, true] }, '1'],
    [false, { enum: ['a', 1, true] }, 'A'],
    [false, { enum: [] }, 'a'],
    [true, { prefix: 'org/' }, 'org/repo'],
    [false, { prefix: 'org/' }, 'organisation'],
    [false, { prefix: '1' }, 1],
    [true, { max: 10 }, 10],
    [false, { max: 10 }, 10.5],
    [false, { max: 10 }, '5'],
    [false, { max: 10 }, undefined],
    [false, { prefix: '' }, undefined],
    [false, { enum: ['a'] }, null],
    [false, { prefix: '', max: 10 }, 5],
    [true, { enum: ['ab', 'cd'], prefix: 'a' }, 'ab'],
    [false, { enum: ['ab', 'cd'], prefix: 'a' }, 'cd'],
  ])('is %s when the argument is bound by %j and is %j', (expected, constraint, value) => {
    const args = value === undefined ? {} : { owner: value }
    const target = { operation: toolCall('create_issue', args), upstream: mcp }
    expect(matchesDestination({ ...entry, args: { owner: constraint } }, target)).toBe(expected)
  })

  test('does not take the member of an argument for an argument', () => {
    // `a/b` in the map is the member `b` of the argument `a`; an argument named "a/b" is `a~1b`.
    const constrained = { ...entry, args: { 'a/b': { enum: ['ok'] } } }
    const member = { operation: toolCall('create_issue', { 'a/b': 'ok' }), upstream: mcp }
    const argument = { operation: toolCall('create_issue', { 'a~1b': 'ok' }), upstream: mcp }
    expect(matchesDestination(constrained, member)).toBe(false)
    expect(matchesDestination(constrained, argument)).toBe(true)
  })
})

function httpApi(path: string, action: string): Destination {
  return { type: 'http_api', locations: [rest.origin], actions: [action], paths: [path] }
}

test('grantAllows() needs one entry that matches whole, not members of several', () => {
  const grant: Pick<Grant, 'destinations'> = {
    destinations: [httpApi('/a', 'GET'), httpApi('/b', 'POST')],
  }
  const allows = (method: string, path: string) =>
    grantAllows(grant as Grant, { operation: http(method, path), upstream: rest })
  expect(allows('GET', '/a')).toBe(true)
  expect(allows('POST', '/b')).toBe(true)
  expect(allows('POST', '/a')).toBe(false)
})

test.each<[boolean, Destination['type'], string, string]>([
  [true, 'http_api', 'https://a.example.org', 'https://*.example.org'],
  [true, 'http_api', 'https://*.example.org', 'https://*.example.org'],
  [true, 'mcp_server', 'https://a.example.org/mcp', 'https://a.example.org/mcp'],
  [true, 'mcp_server', 'https://a.example.org/mcp', 'https://a.example.org'],
  [true, 'ws', 'wss://a.example.org', 'https://a.example.org'],
  [false, 'http_api', 'https://a.example.org', 'https://a.example.org/mcp'],
  [false, 'http_api', 'https://*.example.org', 'https://a.example.org'],
  [false, 'mcp_server', 'https://a.example.org/other', 'https://a.example.org/mcp'],
  [false, 'ws', 'ws://a.example.org', 'https://a.example.org'],
])('isWithinLocations() is %s for %s at %s under %s', (expected, type, location, ceiling) => {
  const entry = { type, locations: [location], actions: [], paths: [], tools: [] } as Destination
  expect(isWithinLocations(entry, ['https://unrelated.org', ceiling])).toBe(expected)
  expect(isWithinLocations(entry, [])).toBe(false)
})
