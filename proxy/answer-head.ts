import type { Dispatcher } from 'undici'
import { canonicalLength } from './headers.ts'

export interface AnswerHead {
  readonly status: number
  readonly message: string
  /** Flat name, value, name, value. */
  readonly headers: string[]
}

/** The answer's fields as they came, flat: a map would join or drop repeated ones. */
export function rawFields({ rawHeaders }: Dispatcher.DispatchController): readonly string[] {
  return flatTexts(rawHeaders)
}

/** The fields behind a chunked body, as they came. */
export function rawTrailers(controller: Dispatcher.DispatchController): readonly string[] {
  return flatTexts(controller.rawTrailers)
}

/** undici's types allow more forms; both our clients give this one. */
function flatTexts(raw: unknown): readonly string[] {
  return Array.isArray(raw) ? raw : []
}

/**
 * What makes an answer's framing one that two readers take differently (RFC 9112 section 6.3), whatever client read it.
 * A short code, or undefined when it has one reading.
 */
export function findAnswerProblem(status: number, raw: readonly string[]): string | undefined {
  if (status > 599) return 'ERR_ANSWER_STATUS'
  let length: string | undefined
  let coding: string | undefined
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? ''
    const value = raw[index + 1] ?? ''
    if (isNamed(name, 'content-length')) {
      if (length !== undefined || !canonicalLength.test(value)) return 'ERR_ANSWER_FRAMING'
      length = value
    } else if (isNamed(name, 'transfer-encoding')) {
      if (coding !== undefined || value.toLowerCase() !== 'chunked') return 'ERR_ANSWER_FRAMING'
      coding = value
    }
  }
  return length !== undefined && coding !== undefined ? 'ERR_ANSWER_FRAMING' : undefined
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
    if (isNamed(headers[index] ?? '', name)) return headers[index + 1]
  }
  return undefined
}

export function withoutField(headers: string[], name: string): void {
  for (let index = headers.length - 2; index >= 0; index -= 2) {
    if (headers[index]?.toLowerCase() === name) headers.splice(index, 2)
  }
}

function isNamed(name: string, wanted: string): boolean {
  return name.length === wanted.length && name.toLowerCase() === wanted
}
