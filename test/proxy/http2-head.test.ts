import { describe, expect, test } from 'vitest'
import { readHttp2Head } from '../../proxy/http2-head.ts'

const good = [':method', 'GET', ':scheme', 'http', ':authority', 'agent', ':path', '/a']

/** The list with this pair in place of the one of the same name. */
function withPair(name: string, value: string): string[] {
  return good.map((part, index) => (good[index - 1] === name && index % 2 === 1 ? value : part))
}

function without(name: string): string[] {
  return good.filter((_, index) => good[index - (index % 2)] !== name)
}

describe('readHttp2Head()', () => {
  test('gives the head of one reading, Host first and no pseudo-header field', () => {
    const head = readHttp2Head([...good, 'x-a', '1', 'x-a', '2', 'te', 'trailers'])
    expect(head).toEqual({
      method: 'GET',
      url: '/a',
      rawHeaders: ['host', 'agent', 'x-a', '1', 'x-a', '2', 'te', 'trailers'],
      problem: undefined,
    })
  })

  test.each([
    ['host in place of :authority', [...without(':authority'), 'host', 'agent']],
    ['host that is the :authority', [...good, 'host', 'agent']],
    [':scheme https', withPair(':scheme', 'https')],
  ])('takes %s', (_, raw) => {
    expect(readHttp2Head(raw)).toMatchObject({ rawHeaders: ['host', 'agent'], problem: undefined })
  })

  // Each by itself: the parser below refuses most of these, and this must not rest on it.
  test.each([
    ['a pseudo-header field twice', [...good, ':path', '/a'], 'more than once'],
    ['an unknown pseudo-header field', [':user', 'root', ...good], 'unknown pseudo-header'],
    [':protocol', [...good, ':protocol', 'websocket'], 'unknown pseudo-header'],
    ['a pseudo-header field late', [...without(':path'), 'x-a', '1', ':path', '/a'], 'behind'],
    ['a capital letter', [...good, 'X-A', '1'], 'capital letter'],
    ['connection', [...good, 'connection', 'close'], 'one connection'],
    ['keep-alive', [...good, 'keep-alive', '1'], 'one connection'],
    ['proxy-connection', [...good, 'proxy-connection', 'close'], 'one connection'],
    ['transfer-encoding', [...good, 'transfer-encoding', 'chunked'], 'one connection'],
    ['upgrade', [...good, 'upgrade', 'websocket'], 'one connection'],
    ['http2-settings', [...good, 'http2-settings', 'AA'], 'one connection'],
    ['another te', [...good, 'te', 'trailers, gzip'], 'TE'],
    ['no :method', without(':method'), ':method'],
    ['no :path', without(':path'), ':path'],
    ['no :scheme', without(':scheme'), ':scheme'],
    ['another :scheme', withPair(':scheme', 'ftp'), ':scheme'],
    ['two host', [...good, 'host', 'agent', 'host', 'agent'], 'host stands more than once'],
    ['another host', [...good, 'host', 'Agent'], ':authority and host differ'],
  ])('finds fault with %s', (_, raw, problem) => {
    expect(readHttp2Head(raw).problem).toContain(problem)
  })

  test('leaves a head without any authority to the gate', () => {
    expect(readHttp2Head(without(':authority'))).toMatchObject({
      rawHeaders: ['host', ''],
      problem: undefined,
    })
  })
})
