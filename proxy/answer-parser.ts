import { AnswerError, readBlock, readFields, readFraming, type Framing } from './answer-fields.ts'
import { maxInterim } from './interim.ts'

/** What an answer is told to, in this order: heads below 200, one head, pieces of the body, the end. */
export interface AnswerSink {
  answerHead(head: ParsedHead): void
  answerBody(piece: Buffer): void
  /** Flat name, value, name, value. */
  answerEnd(trailers: string[]): void
}

export interface ParsedHead {
  readonly status: number
  readonly reason: string
  /** Flat name, value, name, value, as they came; values without outer white space. */
  readonly fields: string[]
  /** Whether the connection may carry another answer behind this one. */
  readonly keepsAlive: boolean
  /** `Keep-Alive: timeout`, seconds. */
  readonly keepAliveSeconds: number | undefined
}

/** What was asked decides where its answer ends (RFC 9112 section 6.3). */
export interface Asked {
  readonly method: string
  /** Whether 101 is an answer to it. */
  readonly upgrade: boolean
}

/** The size of a chunk and what stands behind it on its line, which nobody reads. */
const maxSizeLineBytes = 512

type Phase = 'idle' | 'head' | 'length' | 'close' | 'size' | 'data' | 'data-end' | 'trailers'

/**
 * Reads the answers on one connection, piece by piece as they come. Takes what RFC 9112 lets a server send and nothing
 * that another reader may take differently: throws `AnswerError`, after which the connection is of no use any more.
 */
export class AnswerParser {
  readonly #sink: AnswerSink
  #asked: Asked = { method: '', upgrade: false }
  #phase: Phase = 'idle'
  /** Bytes of the body, or of its chunk, that are still to come. */
  #left = 0
  /** An unfinished line or block, or what a pause holds back. */
  #rest: Buffer | undefined
  #interimCount = 0

  constructor(sink: AnswerSink) {
    this.#sink = sink
  }

  /** Holds back what was not told yet; `push()` goes on with it. */
  isPaused = false

  /** An answer is to come. */
  begin(asked: Asked): void {
    this.#asked = asked
    this.#phase = 'head'
    this.#interimCount = 0
    this.isPaused = false
  }

  /** No answer is under way. */
  get isIdle(): boolean {
    return this.#phase === 'idle'
  }

  /** Takes no more of this answer, from within a call of the sink too. */
  stop(): void {
    this.#phase = 'idle'
  }

  /** Bytes that belong to no answer: behind the last one, or behind the head of a switch. */
  takeRest(): Buffer {
    const rest = this.#rest ?? nothing
    this.#rest = undefined
    return rest
  }

  push(chunk: Buffer): void {
    const bytes = this.#rest ? joined(this.#rest, chunk) : chunk
    this.#rest = undefined
    let at = 0
    while (at < bytes.length && this.#phase !== 'idle' && !this.isPaused) {
      const next = this.#step(bytes, at)
      if (next === at) break
      at = next
    }
    if (at < bytes.length) this.#rest = at === 0 ? bytes : bytes.subarray(at)
  }

  /** The upstream has ended its side. */
  finish(): void {
    if (this.#phase === 'close') this.#end([])
    else if (this.#phase !== 'idle') throw framing('The connection ended within the answer')
  }

  /** Where the next step begins; the same place when more bytes are needed. */
  #step(bytes: Buffer, at: number): number {
    switch (this.#phase) {
      case 'head':
        return this.#head(bytes, at)
      case 'length':
        return this.#body(bytes, at)
      case 'close':
        this.#sink.answerBody(bytes.subarray(at))
        return bytes.length
      case 'size':
        return this.#size(bytes, at)
      case 'data':
        return this.#body(bytes, at)
      case 'data-end':
        return this.#dataEnd(bytes, at)
      case 'trailers':
        return this.#trailers(bytes, at)
      case 'idle':
        return at
    }
  }

  #head(bytes: Buffer, at: number): number {
    const block = readBlock(bytes, at)
    if (block === undefined) {
      // What is no HTTP is refused by its first bytes: it may never send an empty line.
      const first = bytes.toString('latin1', at, at + version.length)
      if (!version.startsWith(first)) throw malformed('No HTTP/1')
      return at
    }
    const lineEnd = block.indexOf('\r\n')
    const line = statusLine.exec(block.slice(0, lineEnd))
    if (!line) throw malformed('The status line is malformed')
    const fields = readFields(block, lineEnd + 2)
    const status = Number(line[2])
    this.#open(status, { reason: line[3] ?? '', isHttp10: line[1] === '0', fields })
    return at + block.length + 2
  }

  #open(
    status: number,
    {
      reason,
      isHttp10,
      fields,
    }: { readonly reason: string; readonly isHttp10: boolean; readonly fields: string[] },
  ): void {
    const framed = readFraming(fields)
    const { length, isChunked } = framed
    // RFC 9112 section 6.1: chunks in HTTP/1.0 are a sign of a message that was mishandled on its way.
    if (isChunked && isHttp10) throw framing('Transfer-Encoding in HTTP/1.0')
    const told = {
      status,
      reason,
      fields,
      keepAliveSeconds: framed.keepAliveSeconds,
    }
    if (status < 200) return this.#openInterim(told, { ...framed, isHttp10 })
    const isBodiless = this.#asked.method === 'HEAD' || status === 204 || status === 304
    // What stands for a body that must not come may come all the same.
    const isUncertain =
      isBodiless && this.#asked.method !== 'HEAD' && (isChunked || (length ?? 0) > 0)
    const isDelimited = isBodiless || isChunked || length !== undefined
    this.#left = length ?? 0
    this.#phase = !isDelimited ? 'close' : isChunked && !isBodiless ? 'size' : 'length'
    const keepsAlive = !isHttp10 && !framed.closes && isDelimited && !isUncertain
    this.#sink.answerHead({ ...told, keepsAlive })
    const isEmpty = this.#phase === 'length' && (isBodiless || this.#left === 0)
    if (isEmpty) this.#end([])
  }

  /** RFC 9110 section 15.2: any number of them may come before the answer, and none has a body. */
  #openInterim(
    told: Omit<ParsedHead, 'keepsAlive'>,
    { length, isChunked, closes, switches, isHttp10 }: Framing & { readonly isHttp10: boolean },
  ): void {
    if (isChunked || length !== undefined) throw framing('A body in an interim answer')
    if (closes || isHttp10) throw framing('An interim answer that is the last one')
    this.#interimCount += 1
    if (this.#interimCount > maxInterim) throw tooLarge('Too many interim answers')
    if (told.status === 100) throw malformed('100 that nobody asked for')
    const isSwitch = told.status === 101
    if (isSwitch && !(this.#asked.upgrade && switches)) {
      throw malformed('101 that nobody asked for')
    }
    if (isSwitch) this.#phase = 'idle'
    this.#sink.answerHead({ ...told, keepsAlive: !isSwitch })
  }

  #body(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + this.#left)
    this.#left -= end - at
    const isWhole = this.#left === 0
    const isLast = isWhole && this.#phase === 'length'
    if (isWhole && this.#phase === 'data') this.#phase = 'data-end'
    this.#sink.answerBody(at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end))
    if (isLast && this.#phase === 'length') this.#end([])
    return end
  }

  /** RFC 9112 section 7.1. What stands behind the size is dropped, in the form that it has there (section 7.1.1). */
  #size(bytes: Buffer, at: number): number {
    const lineFeed = bytes.indexOf(lf, at)
    const seen = lineFeed === -1 ? bytes.length : lineFeed
    if (seen - at > maxSizeLineBytes) throw tooLarge('The line of a chunk is too long')
    if (lineFeed === -1) {
      // What cannot begin a line does not wait for the rest of it.
      if (hexOf(bytes[at]) === -1) throw badChunk()
      return at
    }
    let size = 0
    let place = at
    for (; hexOf(bytes[place]) !== -1; place++) size = size * 16 + hexOf(bytes[place])
    const isBounded = place > at && place - at <= maxSizeDigits
    const isPlain = place === lineFeed - 1
    if (!isBounded || bytes[lineFeed - 1] !== cr) throw badChunk()
    if (!isPlain && !extensionForm.test(bytes.toString('latin1', place, lineFeed - 1)))
      throw badChunk()
    this.#left = size
    this.#phase = size === 0 ? 'trailers' : 'data'
    return lineFeed + 1
  }

  #dataEnd(bytes: Buffer, at: number): number {
    if (bytes[at] !== cr) throw badChunk()
    if (at + 1 === bytes.length) return at
    if (bytes[at + 1] !== lf) throw badChunk()
    this.#phase = 'size'
    return at + 2
  }

  #trailers(bytes: Buffer, at: number): number {
    if (bytes[at] === cr && bytes[at + 1] === lf) {
      this.#end([])
      return at + 2
    }
    const block = readBlock(bytes, at)
    if (block === undefined) return at
    const trailers = readFields(block, 0)
    const { length, isChunked } = readFraming(trailers)
    if (isChunked || length !== undefined) throw framing('A framing field behind the body')
    this.#end(trailers)
    return at + block.length + 2
  }

  #end(trailers: string[]): void {
    this.#phase = 'idle'
    this.#sink.answerEnd(trailers)
  }
}

const nothing = Buffer.alloc(0)
const cr = 13
const lf = 10
const version = 'HTTP/1.'
/** Some servers leave out the space before a reason that is none. */
const statusLine = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: (.*))?$/s
/** Exact integers, and far more than any chunk has. */
const maxSizeDigits = 8
const extensionForm =
  /^(?:;[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"[\t !#-[\]-~]*"))?)+$/

function hexOf(byte: number | undefined): number {
  if (byte === undefined) return -1
  if (byte >= 48 && byte <= 57) return byte - 48
  const letter = byte | 32
  return letter >= 97 && letter <= 102 ? letter - 87 : -1
}

function joined(rest: Buffer, chunk: Buffer): Buffer {
  return chunk.length === 0 ? rest : Buffer.concat([rest, chunk])
}

function malformed(message: string): AnswerError {
  return new AnswerError('ERR_ANSWER_HEAD', message)
}

function framing(message: string): AnswerError {
  return new AnswerError('ERR_ANSWER_FRAMING', message)
}

function badChunk(): AnswerError {
  return new AnswerError('ERR_ANSWER_CHUNK', 'A malformed chunk')
}

function tooLarge(message: string): AnswerError {
  return new AnswerError('ERR_ANSWER_SIZE', message)
}
