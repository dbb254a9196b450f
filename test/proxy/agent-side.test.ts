import { describe, expect, test } from 'vitest'
import { startRelay } from '../kit/relay.ts'

describe('takesTrailers()', () => {
  test.each([
    ['TE: trailers', 'HTTP/1.1', true],
    ['TE: deflate;q=0.5, Trailers', 'HTTP/1.1', true],
    ['TE: deflate', 'HTTP/1.1', false],
    ['TE: x-trailers', 'HTTP/1.1', false],
    ['Accept: trailers', 'HTTP/1.1', false],
    ['TE: trailers', 'HTTP/1.0', false],
  ])('reads %s in %s', async (field, version, expected) => {
    await using relay = await startRelay()
    const agent = relay.agent(`GET /a ${version}\r\nHost: agent\r\n${field}\r\n\r\n`)
    const upstream = await relay.upstreamPeer()
    await upstream.has('\r\n\r\n')
    upstream.socket.write(
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n',
    )
    expect(await relay.ended(1)).toEqual([{ status: 200, end: 'complete' }])
    const end = version === 'HTTP/1.0' ? '\r\n\r\nok' : '2\r\nok\r\n0\r\n'
    await agent.has(expected ? `${end}X-Sum: 7\r\n\r\n` : end)
    expect(agent.text().includes('X-Sum')).toBe(expected)
  })
})
