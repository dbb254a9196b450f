import { canonicalLength } from './headers.ts'

/** An answer over HTTP/1.1 that has no reading, or more than one. */
export class AnswerError extends Error {
  override readonly name = 'AnswerError'
  readonly code: 'ERR_ANSWER_HEAD' | 'ERR_ANSWER_FRAMING' | 'ERR_ANSWER_CHUNK' | 'ERR_ANSWER_SIZE'
  constructor(code: AnswerError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** What fields say of where the answer ends, and of what becomes of the connection. */
export interface Framing {
  readonly length: number | undefined
  readonly isChunked: boolean
  readonly closes: boolean
  readonly switches: boolean
  /** `Keep-Alive: timeout`. */
  readonly keepAliveSeconds: number | undefined
}

/** Of a head or of the fields behind a chunked body. */
const maxBlockBytes = 16_384
const maxFields = 256
/** The lines from here to an empty one, each with its end; undefined while the empty line has not come. */
export function readBlock(bytes: Buffer, at: number): string | undefined {
  const text = bytes.toString('latin1', at, at + maxBlockBytes)
  const end = text.indexOf('\r\n\r\n')
  const block = end === -1 ? text : text.slice(0, end + 2)
  if (malformedBytes.test(block)) throw malformed('A control byte, or half the end of a line')
  if (end !== -1) return block
  if (text.length === maxBlockBytes) throw tooLarge('The fields are too long')
  return undefined
}

/** RFC 9112 section 2.2: a line ends with both or it does not end; and no field has a control byte. */
const malformedBytes = /[^\t\r\n -~\x80-\xff]|\r(?!\n|$)|(?<!\r)\n/

/** Flat name, value, name, value (RFC 9112 section 5). A folded line has no name, and is refused with it. */
export function readFields(block: string, from: number): string[] {
  const fields: string[] = []
  for (let at = from; at < block.length;) {
    const end = block.indexOf('\r\n', at)
    const colon = block.indexOf(':', at)
    if (colon === -1 || colon > end) throw malformed('A line that is no field')
    const name = block.slice(at, colon)
    if (!nameForm.test(name)) throw malformed('A malformed field name')
    fields.push(name, trimmed(block, { from: colon + 1, to: end }))
    if (fields.length > maxFields * 2) throw tooLarge('Too many fields')
    at = end + 2
  }
  return fields
}

const nameForm = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** Without spaces and tabs at either end. */
function trimmed(
  text: string,
  { from, to }: { readonly from: number; readonly to: number },
): string {
  let [start, end] = [from, to]
  while (start < end && isBlank(text.charCodeAt(start))) start += 1
  while (end > start && isBlank(text.charCodeAt(end - 1))) end -= 1
  return text.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 32 || code === 9
}

/** Throws where two readers could take the framing differently (RFC 9112 section 6.3). */
export function readFraming(fields: readonly string[]): Framing {
  const framing_: Mutable<Framing> = {
    length: undefined,
    isChunked: false,
    closes: false,
    switches: false,
    keepAliveSeconds: undefined,
  }
  for (let index = 0; index + 1 < fields.length; index += 2) {
    readFramingField(framing_, { name: fields[index] ?? '', value: fields[index + 1] ?? '' })
  }
  if (framing_.isChunked && framing_.length !== undefined) throw framing('Both length and chunks')
  return framing_
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

function readFramingField(
  found: Mutable<Framing>,
  { name, value }: { readonly name: string; readonly value: string },
): void {
  // Most names are told apart by their length.
  switch (name.length) {
    case 10:
      if (/^connection$/i.test(name)) {
        found.closes ||= closeOption.test(value)
        found.switches ||= upgradeOption.test(value)
      } else if (/^keep-alive$/i.test(name)) {
        const seconds = /(?:^|[,\s])timeout=(\d{1,6})(?:$|[,\s])/i.exec(value)?.[1]
        if (seconds !== undefined) found.keepAliveSeconds = Number(seconds)
      }
      return
    case 14:
      if (!/^content-length$/i.test(name)) return
      if (found.length !== undefined || !canonicalLength.test(value)) {
        throw framing('Content-Length is not one canonical decimal')
      }
      found.length = Number(value)
      return
    case 17:
      if (!/^transfer-encoding$/i.test(name)) return
      if (found.isChunked || !/^chunked$/i.test(value)) {
        throw framing('Transfer-Encoding is not one "chunked"')
      }
      found.isChunked = true
      return
  }
}

const closeOption = /(?:^|,)[\t ]*close[\t ]*(?:,|$)/i
const upgradeOption = /(?:^|,)[\t ]*upgrade[\t ]*(?:,|$)/i

function malformed(message: string): AnswerError {
  return new AnswerError('ERR_ANSWER_HEAD', message)
}

function framing(message: string): AnswerError {
  return new AnswerError('ERR_ANSWER_FRAMING', message)
}

function tooLarge(message: string): AnswerError {
  return new AnswerError('ERR_ANSWER_SIZE', message)
}
