import type { Dispatcher } from 'undici'

/** A request that cannot be written as it is. */
export class UpstreamRequestError extends Error {
  override readonly name = 'UpstreamRequestError'
  readonly code = 'ERR_UPSTREAM_REQUEST'
}

/** How the body of a request is told from what follows it. */
export type RequestFraming = 'none' | 'chunked' | number

/**
 * The head of a request over HTTP/1.1, with its empty line. The agent's own framing is not in it: `framing` is. Throws
 * `UpstreamRequestError` for bytes that would end a line or a word.
 */
export function requestHead(
  { method, path, headers, upgrade }: Dispatcher.DispatchOptions,
  { framing, host }: { readonly framing: RequestFraming; readonly host: string },
): string {
  if (!methodForm.test(method) || !targetForm.test(path)) throw unwritable()
  const flat = flatFields(headers)
  const named = flat[0] === 'host'
  let head = `${method} ${path} HTTP/1.1\r\nhost: ${named ? flat[1] : host}\r\n`
  head += connectionFields(upgrade)
  for (let index = named ? 2 : 0; index + 1 < flat.length; index += 2) {
    const name = flat[index] ?? ''
    const value = flat[index + 1] ?? ''
    if (name.length === 14 && name.toLowerCase() === 'content-length') continue
    if (!nameForm.test(name) || unsafeByte.test(value)) throw unwritable()
    head += `${name}: ${value}\r\n`
  }
  return `${head}${framingField(framing, method)}\r\n`
}

/** The agent's Content-Length; undefined when it sent none. */
export function statedLength(headers: unknown): number | undefined {
  const flat = flatFields(headers)
  for (let index = 0; index + 1 < flat.length; index += 2) {
    const name = flat[index] ?? ''
    if (name.length === 14 && name.toLowerCase() === 'content-length') {
      return Number(flat[index + 1])
    }
  }
  return undefined
}

function connectionFields(upgrade: unknown): string {
  return typeof upgrade === 'string'
    ? `connection: upgrade\r\nupgrade: ${upgrade}\r\n`
    : 'connection: keep-alive\r\n'
}

function framingField(framing: RequestFraming, method: string): string {
  switch (framing) {
    case 'chunked':
      return 'transfer-encoding: chunked\r\n'
    case 'none':
      // RFC 9110 section 8.6: where a method has a use for a body, none is said.
      return method === 'POST' || method === 'PUT' || method === 'PATCH'
        ? 'content-length: 0\r\n'
        : ''
    default:
      return `content-length: ${framing}\r\n`
  }
}

function flatFields(headers: unknown): readonly string[] {
  return Array.isArray(headers) ? headers : []
}

function unwritable(): UpstreamRequestError {
  return new UpstreamRequestError('Bytes in the head that end a line or a word')
}

const methodForm = /^[A-Z]{1,32}$/
const targetForm = /^[!-~\x80-\xff]+$/
const nameForm = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
/** Above Latin-1 too: written as Latin-1, some of it would end a line. */
const unsafeByte = /[^\t -~\x80-\xff]/
