import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { AnswerError } from '../../proxy/answer-fields.ts'
import { AnswerParser } from '../../proxy/answer-parser.ts'
import { readWithLlhttp, type ReadHead, type Reading } from '../kit/llhttp.ts'
import { mutated } from '../kit/mutated.ts'

/** A longer run: FUZZ_RUNS=1000000 FUZZ_SEED=7 npx vitest run test/conformance/answers. */
const runs = {
  numRuns: Number(process.env['FUZZ_RUNS'] ?? 5_000),
  seed: Number(process.env['FUZZ_SEED'] ?? 20_261_125),
}

test('an answer of an upstream is read as llhttp reads it, or refused', () => {
  const tally = { whole: 0, unfinished: 0, refused: 0, refusedByUsAlone: 0, trailers: 0 }
  const property = fc.property(mutants, splits, ({ base: { method }, text }, share) => {
    const bytes = Buffer.from(text, 'latin1')
    const ours = read([bytes], method)
    expectSame(read(eachByte(bytes), method), ours, () => 'byte by byte')
    const at = Math.floor(share * bytes.length)
    expectSame(read(halves(bytes, at), method), ours, () => `split at ${at}`)
    const theirs = readWithLlhttp(bytes, { method })
    if (ours.isRefused) {
      tally.refused += 1
      tally.refusedByUsAlone += Number(theirs.end !== undefined)
      return
    }
    tally[ours.end === undefined ? 'unfinished' : 'whole'] += 1
    tally.trailers += Number(ours.trailers.length > 0)
    // We look at a head when it is there: until then we wait where llhttp may have refused.
    const isEarly = ours.end === undefined && theirs.isRefused
    expectSame(isEarly ? { ...ours, isRefused: true } : ours, theirs, () => 'llhttp')
  })
  withoutStacks(() => fc.assert(property, runs))

  process.stdout.write(`${runs.numRuns} answers, seed ${runs.seed}: ${JSON.stringify(tally)}\n`)
  // Each side was met often enough to say something.
  expect(tally.whole).toBeGreaterThan(runs.numRuns / 10)
  expect(tally.refused).toBeGreaterThan(runs.numRuns / 10)
  expect(tally.unfinished).toBeGreaterThan(runs.numRuns / 500)
  expect(tally.trailers).toBeGreaterThan(runs.numRuns / 200)
}, 3_600_000)

test('an answer of an upstream is read the same wherever its bytes are split', () => {
  const property = fc.property(mutants, ({ base: { method }, text }) => {
    const bytes = Buffer.from(text, 'latin1')
    const ours = read([bytes], method)
    for (let at = 1; at < bytes.length; at++) {
      expectSame(read(halves(bytes, at), method), ours, () => `split at ${at}`)
    }
  })
  const some = { ...runs, numRuns: Math.ceil(runs.numRuns / 10) }
  withoutStacks(() => expect(() => fc.assert(property, some)).not.toThrow())
}, 3_600_000)

/** A stack for each of some million refusals would be most of the time. */
function withoutStacks(run: () => void): void {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    run()
  } finally {
    Error.stackTraceLimit = limit
  }
}

interface Base {
  readonly method: string
  readonly text: string
}

const bases: readonly Base[] = [
  { method: 'GET', text: 'HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello' },
  {
    method: 'GET',
    text: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=1\r\nyou\r\n0\r\n\r\n',
  },
  {
    method: 'GET',
    text: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nab\r\n0\r\nX-T: 1\r\nX-U: \t2 \r\n\r\n',
  },
  { method: 'GET', text: 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end' },
  { method: 'GET', text: 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok' },
  { method: 'HEAD', text: 'HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n' },
  { method: 'GET', text: 'HTTP/1.1 204 No Content\r\n\r\n' },
  { method: 'GET', text: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n' },
  {
    method: 'GET',
    text: 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 \r\nContent-Length: 1\r\n\r\nx',
  },
]

const words = [
  '\r\n',
  '\n',
  '\r',
  '\0',
  ' ',
  '\t',
  ':',
  ',',
  ';',
  '"',
  '\x0b',
  '\x7f',
  '\xff',
  '0',
  '+',
  '\r\n\r\n',
  '\n\n',
  '\r\n ',
  'HTTP/1.0',
  'HTTP/1.1',
  'HTTP/2.0',
  'HTTP/1.1 200 OK\r\n',
  'HTTP/1.1 100 Continue\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\n\r\n',
  'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n',
  'Content-Length: 0\r\n',
  'Content-Length: 5\r\n',
  'Content-Length: +5\r\n',
  'Content-Length: 05\r\n',
  'content-length:5 \r\n',
  'Content-Length: 5, 5\r\n',
  'Content-Length : 4\r\n',
  'Content-Length:\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: identity\r\n',
  'Transfer-Encoding: gzip, chunked\r\n',
  'Transfer-Encoding: chunked, chunked\r\n',
  'Transfer-Encoding:\tChunked\r\n',
  'Transfer-Encoding:\r\n chunked\r\n',
  'Transfer-Encoding : chunked\r\n',
  'Connection: close\r\n',
  'Connection: keep-alive, X-A\r\n',
  'Connection: upgrade\r\n',
  'Upgrade: h2c\r\n',
  'Keep-Alive: timeout=5, max=10\r\n',
  'X-T: 1\r\n',
  '0\r\n\r\n',
  '0\r\nX-T: 1\r\n\r\n',
  '5\r\n',
  '05\r\nhello\r\n',
  '5\nhello\n',
  '5 \r\nhello\r\n',
  '-1\r\n',
  '0x5\r\n',
  'fffffffffffffffff\r\n',
  '100000000\r\n',
  '5;\n',
  '5;a="\r\n"\r\n',
  ';a="b\\"c";d=e',
  ';a=',
]

const mutants = mutated(bases, { words, text: ({ text }) => text })
const splits = fc.double({ min: 0, max: 1, noNaN: true })

/** By our parser; at the end the upstream ends its side. */
function read(pieces: readonly Buffer[], method: string): Reading {
  const heads: ReadHead[] = []
  const body: string[] = []
  let trailers: readonly string[] = []
  let isWhole = false
  const parser = new AnswerParser({
    answerHead: ({ status, reason, fields }) => heads.push({ status, reason, fields }),
    answerBody: (piece) => body.push(piece.toString('latin1')),
    answerEnd: (flat) => {
      trailers = flat
      isWhole = true
    },
  })
  parser.begin({ method, upgrade: false })
  let taken = 0
  const reading = (isRefused: boolean): Reading => ({
    heads,
    body: body.join(''),
    trailers,
    end: isWhole ? taken : undefined,
    isRefused,
  })
  try {
    for (const piece of pieces) {
      taken += piece.length
      parser.push(piece)
      if (parser.isIdle) {
        taken -= parser.takeRest().length
        return reading(false)
      }
    }
  } catch (error) {
    if (error instanceof AnswerError) return reading(true)
    throw error
  }
  try {
    parser.finish()
  } catch {
    return reading(false)
  }
  return reading(false)
}

function halves(bytes: Buffer, at: number): readonly Buffer[] {
  return [bytes.subarray(0, at), bytes.subarray(at)]
}

function eachByte(bytes: Buffer): readonly Buffer[] {
  return Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))
}

/** Not `toEqual`: it costs more than all the readings. */
function expectSame(one: Reading, other: Reading, what: () => string): void {
  const [got, wanted] = [JSON.stringify(one), JSON.stringify(other)]
  if (got !== wanted) throw new Error(`${what()}: expected ${wanted}, got ${got}`)
}
