import { describe, expect, test } from 'vitest'
import { AnswerParser, type Asked, type ParsedHead } from '../../proxy/answer-parser.ts'

const get: Asked = { method: 'GET', upgrade: false }
const head = 'HTTP/1.1 200 OK\r\n'
const chunked = `${head}Transfer-Encoding: chunked\r\n\r\n`

describe('AnswerParser', () => {
  test('push() tells head, pieces and end, and keeps what belongs to no answer', () => {
    const read = push(`${head}X-A:\t 1 \r\nX-A: 2\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200`)
    expect(read.heads).toEqual([
      {
        status: 200,
        reason: 'OK',
        fields: ['X-A', '1', 'X-A', '2', 'Content-Length', '5'],
        keepsAlive: true,
        keepAliveSeconds: undefined,
      },
    ])
    expect(read.body).toBe('hello')
    expect(read.isWhole).toBe(true)
    expect(read.rest).toBe('HTTP/1.1 200')
  })

  test('push() takes chunks off, drops what stands behind their sizes, and tells trailers', () => {
    const read = push(`${chunked}5;a=1;b="x y"\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n`)
    expect(read).toMatchObject({ body: 'hello0123456789', isWhole: true, trailers: ['X-T', '1'] })
  })

  test.each([
    ['a HEAD', `${head}Content-Length: 5\r\n\r\n`, { method: 'HEAD', upgrade: false }, true],
    ['a HEAD in chunks', chunked, { method: 'HEAD', upgrade: false }, true],
    ['a 204', 'HTTP/1.1 204 No Content\r\n\r\n', get, true],
    ['a 304', 'HTTP/1.1 304 Not Modified\r\n\r\n', get, true],
    // A body that must not come may come all the same.
    ['a 304 with a length', 'HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n', get, false],
    ['a 204 in chunks', 'HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n', get, false],
    ['no reason', 'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n', get, true],
    ['close', `${head}Connection: x, Close\r\nContent-Length: 0\r\n\r\n`, get, false],
    ['HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n', get, false],
  ] as const)('push() ends %s with its head', (_, text, asked, keepsAlive) => {
    const read = push(text, asked)
    expect(read).toMatchObject({ isWhole: true, body: '', rest: '' })
    expect(read.heads[0]?.keepsAlive).toBe(keepsAlive)
  })

  test('finish() ends what lasts until the connection ends, and nothing else', () => {
    const read = push(`${head}\r\npart`)
    expect(read).toMatchObject({ isWhole: false, body: 'part' })
    read.parser.finish()
    expect(read.sink.isWhole).toBe(true)
    for (const text of ['', 'HTTP/1.1 2', `${head}Content-Length: 5\r\n\r\nhell`, chunked]) {
      expect(() => push(text).parser.finish()).toThrow(coded('ERR_ANSWER_FRAMING'))
    }
  })

  test('push() tells interim answers, and 101 alone where it was asked for', () => {
    const hints = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'
    expect(push(`${hints}${hints}${head}\r\n`).heads.map(({ status }) => status)).toEqual([
      103, 103, 200,
    ])
    const upgraded = 'HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
    const read = push(`${upgraded}\x81\x00`, { method: 'GET', upgrade: true })
    expect(read).toMatchObject({ isWhole: false, rest: '\x81\x00' })
    expect(() => push(upgraded)).toThrow(coded('ERR_ANSWER_HEAD'))
  })

  test('push() holds back what comes behind a pause', () => {
    const { parser, sink } = open()
    sink.onBody = () => {
      parser.isPaused = true
    }
    parser.push(Buffer.from(`${chunked}1\r\na\r\n1\r\nb\r\n0\r\n\r\n`))
    expect(sink.body).toBe('a')
    parser.isPaused = false
    parser.push(Buffer.alloc(0))
    expect(sink.body).toBe('ab')
    parser.isPaused = false
    parser.push(Buffer.alloc(0))
    expect(sink.isWhole).toBe(true)
  })

  test('stop() from within a piece tells nothing more', () => {
    const { parser, sink } = open()
    sink.onBody = () => parser.stop()
    parser.push(Buffer.from(`${head}Content-Length: 1\r\n\r\na`))
    expect(sink).toMatchObject({ body: 'a', isWhole: false })
  })

  test.each([
    ['no HTTP', 'SSH-2.0'],
    ['another version', 'HTTP/2.0 200 OK\r\n\r\n'],
    ['an empty line before', `\r\n${head}\r\n`],
    ['two digits', 'HTTP/1.1 99 OK\r\n\r\n'],
    ['a tab in the status line', 'HTTP/1.1\t200 OK\r\n\r\n'],
    ['a bare LF', 'HTTP/1.1 200 OK\nX'],
    ['a bare CR', `${head}X: a\rb\r\n\r\n`],
    ['NUL', `${head}X: \0`],
    ['DEL', `${head}X: \x7f\r\n\r\n`],
    ['a folded line', `${head}X: 1\r\n 2\r\n\r\n`],
    ['a space before the colon', `${head}X : 1\r\n\r\n`],
    ['no name', `${head}: 1\r\n\r\n`],
    ['no colon', `${head}X\r\n\r\n`],
    ['a name of other bytes', `${head}X\xe9: 1\r\n\r\n`],
    ['a 100', 'HTTP/1.1 100 Continue\r\n\r\n'],
  ])('push() refuses the head: %s', (_, text) => {
    expect(() => push(text)).toThrow(coded('ERR_ANSWER_HEAD'))
  })

  test.each([
    ['two lengths', 'Content-Length: 5\r\ncontent-length: 5\r\n'],
    ['a list of lengths', 'Content-Length: 5, 5\r\n'],
    ['a sign', 'Content-Length: +5\r\n'],
    ['a leading zero', 'Content-Length: 05\r\n'],
    ['an empty length', 'Content-Length:\r\n'],
    ['more than exact integers hold', 'Content-Length: 9999999999999999\r\n'],
    ['length and chunks', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n'],
    ['another coding', 'Transfer-Encoding: gzip\r\n'],
    ['two codings', 'Transfer-Encoding: gzip, chunked\r\n'],
    ['chunks twice', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n'],
  ])('push() refuses the framing: %s', (_, fields) => {
    expect(() => push(`${head}${fields}\r\n`)).toThrow(coded('ERR_ANSWER_FRAMING'))
  })

  test.each([
    ['chunks in HTTP/1.0', chunked.replace('1.1', '1.0')],
    ['a length in a 103', 'HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n'],
    ['close in a 103', 'HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n'],
    ['a length behind the body', `${chunked}0\r\nContent-Length: 5\r\n\r\n`],
  ])('push() refuses the framing: %s', (_, text) => {
    expect(() => push(text)).toThrow(coded('ERR_ANSWER_FRAMING'))
  })

  test.each([
    'zz\r\n',
    'g',
    '\r\n',
    '5 \r\nhello',
    ' 5\r\nhello',
    '0x5\r\nhello',
    '-5\r\n',
    '5\nhello',
    '5;\nhello\r\n',
    '5\r\rhello\r\n',
    '5;\r\nhello',
    '5;a\0\r\nhello',
    '5;a="\r\nhello',
    '000000005\r\nhello',
    '5\r\nhello5\r\n',
    '5\r\nhello\n5',
    '5\r\nhello\r5',
  ])('push() refuses the chunk %j', (text) => {
    expect(() => push(chunked + text)).toThrow(coded('ERR_ANSWER_CHUNK'))
  })

  test.each([
    ['a head', `${head}X: ${'x'.repeat(16_384)}`],
    ['many fields', `${head}${'X: 1\r\n'.repeat(257)}\r\n`],
    ['many interim answers', 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(17)],
    ['trailers', `${chunked}0\r\nX: ${'x'.repeat(16_384)}`],
    ['a chunk extension', `${chunked}5;${'x'.repeat(512)}`],
  ])('push() refuses what is too long: %s', (_, text) => {
    expect(() => push(text)).toThrow(coded('ERR_ANSWER_SIZE'))
  })
})

function coded(code: string): unknown {
  return expect.objectContaining({ code })
}

interface Sink {
  readonly heads: ParsedHead[]
  body: string
  trailers: readonly string[]
  isWhole: boolean
  onBody?: () => void
}

function open(asked: Asked = get): { readonly parser: AnswerParser; readonly sink: Sink } {
  const sink: Sink = { heads: [], body: '', trailers: [], isWhole: false }
  const parser = new AnswerParser({
    answerHead: (one) => sink.heads.push(one),
    answerBody: (piece) => {
      sink.body += piece.toString('latin1')
      sink.onBody?.()
    },
    answerEnd: (trailers) => {
      sink.trailers = trailers
      sink.isWhole = true
    },
  })
  parser.begin(asked)
  return { parser, sink }
}

function push(text: string, asked: Asked = get) {
  const { parser, sink } = open(asked)
  parser.push(Buffer.from(text, 'latin1'))
  return { parser, sink, ...sink, rest: parser.isIdle ? parser.takeRest().toString('latin1') : '' }
}
