import type { Dispatcher } from 'undici'
import { fieldName } from './field-name.ts'
import { canonicalLength } from './headers.ts'

export interface AnswerHead {
  readonly status: number
  readonly message: string
  /** Flat name, value, name, value. */
  readonly headers: string[]
}

/** The answer's fields as they came: the parsed map would join or drop repeated ones. */
export function rawFields({ rawHeaders }: Dispatcher.DispatchController): readonly string[] {
  return Array.isArray(rawHeaders) ? textsOf(rawHeaders) : []
}

/** The fields behind a chunked body, as they came. */
export function rawTrailers({
  rawTrailers: raw,
}: Dispatcher.DispatchController): readonly string[] {
  return Array.isArray(raw) ? textsOf(raw) : []
}

function textsOf(raw: readonly (string | Buffer)[]): readonly string[] {
  return raw.map((part) => (typeof part === 'string' ? part : part.toString('latin1')))
}

/**
 * What makes an answer's framing one that two readers take differently (RFC 9112 section 6.3), behind undici's parser.
 * A short code, or undefined when it has one reading.
 */
export function findAnswerProblem(status: number, raw: readonly string[]): string | undefined {
  if (status > 599) return 'ERR_ANSWER_STATUS'
  const lengths = valuesOf(raw, 'content-length')
  const codings = valuesOf(raw, 'transfer-encoding')
  if (lengths.length > 1 || codings.length > 1) return 'ERR_ANSWER_FRAMING'
  const [length] = lengths
  const [coding] = codings
  if (length !== undefined && !canonicalLength.test(length)) return 'ERR_ANSWER_FRAMING'
  if (coding === undefined) return undefined
  return length !== undefined || coding.toLowerCase() !== 'chunked'
    ? 'ERR_ANSWER_FRAMING'
    : undefined
}

/** Whether an answer says that the credential of the request was not accepted: what it says, or undefined. */
export function findRejection(status: number, headers: readonly string[]): string | undefined {
  if (status === 401 || status === 407) return `the upstream answered ${status}`
  const isUnauthenticated = fieldValue(headers, 'grpc-status') === '16'
  return isUnauthenticated ? 'the upstream answered grpc-status 16' : undefined
}

/** Proxies ask for no encoding of what they look into: what comes encoded all the same cannot be looked at. */
export function isEncoded(headers: readonly string[]): boolean {
  const coding = fieldValue(headers, 'content-encoding')
  return coding !== undefined && coding.toLowerCase() !== 'identity'
}

export function contentLength(headers: readonly string[]): number | undefined {
  const value = fieldValue(headers, 'content-length')
  return value === undefined ? undefined : Number(value)
}

/** The first value of a field, by its lower-case name. */
export function fieldValue(headers: readonly string[], name: string): string | undefined {
  for (let index = 0; index + 1 < headers.length; index += 2) {
    if (fieldName(headers[index] ?? '').lower === name) return headers[index + 1]
  }
  return undefined
}

export function withoutField(headers: string[], name: string): void {
  for (let index = headers.length - 2; index >= 0; index -= 2) {
    if (fieldName(headers[index] ?? '').lower === name) headers.splice(index, 2)
  }
}

function valuesOf(raw: readonly string[], name: string): readonly string[] {
  const values: string[] = []
  for (let index = 0; index + 1 < raw.length; index += 2) {
    if (fieldName(raw[index] ?? '').lower === name) values.push((raw[index + 1] ?? '').trim())
  }
  return values
}
