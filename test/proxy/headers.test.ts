import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  inboundResponseHeaders,
  outboundHeaders,
  outboundQuery,
  trailerFields,
} from '../../proxy/headers.ts'

const options = {
  host: 'api.example.org',
  slots: ['authorization', 'x-tenant-key'],
  injected: [
    ['authorization', 'Bearer ours'],
    ['x-tenant-key', 'ours'],
  ],
  stripAcceptEncoding: false,
} as const

const stripped = [
  'Authorization',
  'Proxy-Authorization',
  'Cookie',
  'X-Api-Key',
  'api-key',
  'X-Goog-Api-Key',
  'Task-Grant',
  'Task-Grant-Chain',
  'Task-Id',
  'Task-Approval',
  'X-Forwarded-For',
  'X-Forwarded-Client-Cert',
  'Forwarded',
  'Via',
  'X-Real-IP',
  'X-Client-Cert',
  'X-Envoy-Internal',
  'X-Original-URL',
  'X-HTTP-Method-Override',
  'X-Remote-User',
  'X-Amz-Security-Token',
  'Chaperone-Decision',
  'X-Tenant-Key',
  'Host',
  'Connection',
  'Keep-Alive',
  'Proxy-Connection',
  'TE',
  'Trailer',
  'Transfer-Encoding',
  'Upgrade',
  'Expect',
  'HTTP2-Settings',
]

const via = ['via', '1.1 chaperone']

function namesOf(flat: readonly string[]): string[] {
  return flat.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase())
}

describe('outboundHeaders()', () => {
  test('keeps what is harmless in its order, writes Host first and the credential last', () => {
    const raw = ['Accept', 'a', 'X-Custom', '1', 'accept', 'b', 'Content-Length', '5']
    expect(outboundHeaders(raw, options)).toEqual([
      'host',
      'api.example.org',
      'Accept',
      'a',
      'X-Custom',
      '1',
      'accept',
      'b',
      'Content-Length',
      '5',
      'via',
      '1.1 chaperone',
      'authorization',
      'Bearer ours',
      'x-tenant-key',
      'ours',
    ])
  })

  test('takes off what Connection lists, but never the length or what we inject', () => {
    const raw = [
      'Connection',
      'x-hop, Content-Length, authorization',
      'X-Hop',
      '1',
      'Content-Length',
      '5',
    ]
    expect(outboundHeaders(raw, options)).toEqual([
      'host',
      'api.example.org',
      'Content-Length',
      '5',
      'via',
      '1.1 chaperone',
      'authorization',
      'Bearer ours',
      'x-tenant-key',
      'ours',
    ])
  })

  test('writes one Content-Length, and only a canonical one', () => {
    const raw = ['Content-Length', '05', 'content-length', '5', 'Content-Length', '6']
    const out = outboundHeaders(raw, { ...options, slots: [], injected: [] })
    expect(out).toEqual(['host', 'api.example.org', 'content-length', '5', ...via])
  })

  test('asks for a readable answer when it must be looked into', () => {
    const out = outboundHeaders(['Accept-Encoding', 'br'], {
      ...options,
      injected: [],
      stripAcceptEncoding: true,
    })
    expect(out).toEqual(['host', 'api.example.org', 'accept-encoding', 'identity', ...via])
  })

  test('keeps the fields of WebSocket for an upgrade alone, and leaves Connection and Upgrade to undici', () => {
    const raw = [
      'Connection',
      'keep-alive, Upgrade',
      'Upgrade',
      'websocket',
      'Sec-WebSocket-Key',
      'k',
      'Content-Length',
      '0',
    ]
    expect(outboundHeaders(raw, { ...options, slots: [], injected: [], upgrade: true })).toEqual([
      'host',
      'api.example.org',
      'Sec-WebSocket-Key',
      'k',
      ...via,
    ])
    expect(namesOf(outboundHeaders(raw, options))).not.toContain('sec-websocket-key')
  })

  test('has each slot exactly once and no field of ours, whatever the agent sends', () => {
    const respell = fc
      .tuple(fc.constantFrom(...stripped), fc.infiniteStream(fc.nat(2)))
      .map(([name, choices]) =>
        Array.from(name)
          .map((letter) => {
            const { value: choice } = choices.next()
            if (letter === '-') return choice === 0 ? '_' : '-'
            return choice === 0 ? letter.toUpperCase() : letter.toLowerCase()
          })
          .join(''),
      )
    const field = fc.tuple(
      fc.oneof(respell, fc.constantFrom('Accept', 'X-Custom')),
      fc.oneof(respell, fc.constant('Bearer theirs'), fc.array(respell).map(String)),
    )
    fc.assert(
      fc.property(fc.array(field, { maxLength: 20 }), (fields) => {
        const out = outboundHeaders(fields.flat(), options)
        const names = namesOf(out).map((name) => name.replaceAll('_', '-'))
        expect(names[0]).toBe('host')
        expect(names.slice(-3)).toEqual(['via', 'authorization', 'x-tenant-key'])
        const forbidden = new Set(stripped.map((name) => name.toLowerCase()))
        expect(names.slice(1, -3).filter((name) => forbidden.has(name))).toEqual([])
        expect(out.slice(-4)).toEqual(options.injected.flat())
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('inboundResponseHeaders()', () => {
  const upstreamAnswer = [
    'Content-Type',
    'text/plain',
    'Set-Cookie',
    'a=1',
    'Set-Cookie',
    'b=2',
    'Alt-Svc',
    'h3',
    'WWW-Authenticate',
    'Bearer',
    'Proxy-Authenticate',
    'Basic',
    'Chaperone-Denial',
    'x',
    'X-Should-Retry',
    'true',
    'Strict-Transport-Security',
    'max-age=1',
    'Connection',
    'x-hop',
    'X-Hop',
    '1',
    'Transfer-Encoding',
    'chunked',
    'Authentication-Info',
    'x',
    'Keep-Alive',
    'x',
    'Retry-After',
    '3',
  ]

  test('takes off what concerns our credential, our connection and our own statements', () => {
    expect(inboundResponseHeaders(upstreamAnswer, { allowSetCookie: false })).toEqual([
      'Content-Type',
      'text/plain',
      'Retry-After',
      '3',
      ...via,
    ])
  })

  test('keeps every Set-Cookie as its own field when allowed', () => {
    expect(inboundResponseHeaders(upstreamAnswer, { allowSetCookie: true })).toEqual([
      'Content-Type',
      'text/plain',
      'Set-Cookie',
      'a=1',
      'Set-Cookie',
      'b=2',
      'Retry-After',
      '3',
      ...via,
    ])
  })

  test('keeps the length that Connection lists', () => {
    const raw = ['Connection', 'content-length', 'Content-Length', '5']
    expect(inboundResponseHeaders(raw, { allowSetCookie: false })).toEqual([
      'Content-Length',
      '5',
      ...via,
    ])
  })
})

describe('trailerFields()', () => {
  test('keeps what may stand behind a body, and no framing, cookie, credential or word of ours', () => {
    const raw = [
      'X-Checksum',
      'abc',
      'Content-Length',
      '5',
      'Content_Type',
      'text/html',
      'Transfer-Encoding',
      'chunked',
      'Set-Cookie',
      'a=1',
      'Authorization',
      'Bearer x',
      'Cache-Control',
      'public',
      'Mcp-Session-Id',
      's',
      'Chaperone-Denial',
      'policy-denied',
      'Connection',
      'close',
    ]
    expect(trailerFields(raw)).toEqual([['X-Checksum', 'abc']])
  })
})

describe('outboundQuery()', () => {
  const injected = [['api_key', 'a b&c']] as const

  test.each([undefined, '', 'a=1&&b=%2f;c', 'api_key=theirs'])(
    'leaves %s as it is without slots',
    (query) => {
      expect(outboundQuery(query, { slots: [], injected: [] })).toEqual({ query })
    },
  )

  test.each([
    [undefined, 'api_key=a%20b%26c'],
    ['', 'api_key=a%20b%26c'],
    ['a=%2F', 'a=%2F&api_key=a%20b%26c'],
    ['xapi_key=1&q=api_key', 'xapi_key=1&q=api_key&api_key=a%20b%26c'],
  ])('appends the injected pair to %s', (query, wanted) => {
    expect(outboundQuery(query, { slots: ['api_key'], injected })).toEqual({ query: wanted })
  })

  test.each([
    'api_key=theirs',
    'a=1&API_KEY=x',
    'api%5Fkey=x',
    '%61pi_key',
    'a=1;api_key=x',
    'api_key[]=x',
    '+api_key=x',
    'api_key%20=x',
  ])('refuses %s, which names a slot', (query) => {
    expect(outboundQuery(query, { slots: ['api_key'], injected })).toMatchObject({
      code: 'credential-ambiguous',
      detail: 'query: the agent wrote a credential parameter',
    })
  })
})
