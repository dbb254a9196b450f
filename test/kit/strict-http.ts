/** A reader of HTTP/1.1 requests that forgives nothing: what it cannot read in one way only is an error. */
export interface StrictRequest {
  readonly method: string
  readonly target: string
  readonly fields: readonly (readonly [name: string, value: string])[]
  readonly body: string
}

/**
 * Reads one request from the start of Latin-1 text. Undefined while it is not whole. Throws `Error` when the bytes have
 * no reading, or more than one.
 */
export function readRequest(
  text: string,
): { readonly request: StrictRequest; readonly rest: string } | undefined {
  const end = text.indexOf('\r\n\r\n')
  if (end === -1) return undefined
  const [line = '', ...lines] = text.slice(0, end).split('\r\n')
  const [, method, target] =
    /^([A-Z]{1,32}) (\/[\x21-\x7e]*) HTTP\/1\.1$/.exec(line) ?? unread('request line', line)
  const fields = lines.map(readField)
  const rest = text.slice(end + 4)
  const body = readBody(fields, rest)
  if (body === undefined || method === undefined || target === undefined) return undefined
  return {
    request: { method, target, fields, body: body.text },
    rest: rest.slice(body.length),
  }
}

function readField(line: string): readonly [string, string] {
  const [, name = '', value = ''] =
    /^([A-Za-z0-9!#$%&'*+.^`|~-]{1,128}): ([\t\x20-\x7e\x80-\xff]*)$/.exec(line) ??
    unread('field', line)
  return [name.toLowerCase(), value]
}

interface Body {
  readonly text: string
  /** Bytes on the wire. */
  readonly length: number
}

function readBody(fields: StrictRequest['fields'], rest: string): Body | undefined {
  const lengths = valuesOf(fields, 'content-length')
  const codings = valuesOf(fields, 'transfer-encoding')
  if (lengths.length + codings.length > 1) unread('framing', [...lengths, ...codings].join())
  if (codings.length > 0) {
    return codings[0] === 'chunked' ? readChunks(rest) : unread('coding', codings[0] ?? '')
  }
  const [length = '0'] = lengths
  if (!/^(?:0|[1-9]\d{0,9})$/.test(length)) unread('length', length)
  const size = Number(length)
  return rest.length < size ? undefined : { text: rest.slice(0, size), length: size }
}

function readChunks(rest: string): Body | undefined {
  let text = ''
  let at = 0
  for (;;) {
    const end = rest.indexOf('\r\n', at)
    if (end === -1) return undefined
    const line = rest.slice(at, end)
    if (!/^[0-9a-fA-F]{1,8}$/.test(line)) unread('chunk size', line)
    const size = parseInt(line, 16)
    const next = end + 2 + size
    if (rest.length < next + 2) return undefined
    if (rest.slice(next, next + 2) !== '\r\n') unread('chunk end', rest.slice(next, next + 2))
    text += rest.slice(end + 2, next)
    at = next + 2
    if (size === 0) return { text, length: at }
  }
}

export function valuesOf(fields: StrictRequest['fields'], name: string): readonly string[] {
  return fields.filter(([known]) => known === name).map(([, value]) => value)
}

function unread(what: string, text: string): never {
  throw new Error(`No single reading of the ${what}: ${JSON.stringify(text.slice(0, 200))}`)
}
