import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import type { AgentRequest } from './arrival.ts'
import { fieldName } from './field-name.ts'
import { canonicalLength, connectionOptions } from './headers.ts'
import { Http2Request } from './http2-arrival.ts'

/**
 * Our own check behind Node's parser, which lets through forms that two readers frame or route differently: other
 * spellings of Transfer-Encoding and Content-Length, two Host fields, HTTP/1.0 with chunks, names with `_`. Undefined
 * when the head has one reading.
 */
export function gate(req: AgentRequest): Denial | undefined {
  const isHttp2 = req instanceof Http2Request
  if (isHttp2 && req.problem !== undefined) return deny('request-refused', req.problem)
  const head: Head = {
    method: req.method ?? '',
    httpVersion: req.httpVersion,
    isHttp2,
    rawHeaders: req.rawHeaders,
    fields: readSingleFields(req.rawHeaders),
  }
  for (const check of checks) {
    const detail = check(head)
    if (detail !== undefined) return deny('request-refused', detail)
  }
  return undefined
}

interface Head {
  readonly method: string
  readonly httpVersion: string
  /** By its framing: a line of HTTP/1 may say that it is HTTP/2.0. */
  readonly isHttp2: boolean
  readonly rawHeaders: readonly string[]
  /** What stands at most once, by its lower-case name. */
  readonly fields: ReadonlyMap<string, string>
}

type Check = (head: Head) => string | undefined

const checks: readonly Check[] = [
  checkRequestLine,
  checkFields,
  checkHost,
  checkFraming,
  checkConnection,
  checkUpgrade,
  checkExpect,
]

/** Node drops fields past its own limit in silence: the listener's lies one above this. */
export const maxFields = 100

const methodForm = /^[A-Z]{1,32}$/
/** TRACE echoes the injected credential (RFC 9110 section 9.3.8); a tunnel is past every check. */
const refusedMethods: ReadonlySet<string> = new Set(['TRACE', 'TRACK', 'CONNECT'])
const controlByte = /[^\t -~\x80-\xff]/
const hostForm =
  /^(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}))(?::([1-9]\d{0,4}))?$/

/** Fields that we judge by or that a reader takes the first or the last of. */
const singleFields: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'transfer-encoding',
  'content-type',
  'expect',
  'upgrade',
  'mcp-method',
  'mcp-name',
  'mcp-session-id',
  'mcp-protocol-version',
])

function checkRequestLine({ method, httpVersion, isHttp2 }: Head): string | undefined {
  const isHttp1 = httpVersion === '1.1' || httpVersion === '1.0'
  if (!isHttp2 && !isHttp1) return 'gate: not HTTP/1.1 or HTTP/1.0'
  if (!methodForm.test(method)) return 'gate: the method is not 1 to 32 capital letters'
  return refusedMethods.has(method) ? 'gate: this method is never forwarded' : undefined
}

function checkFields({ rawHeaders }: Head): string | undefined {
  if (rawHeaders.length > maxFields * 2) return 'gate: more than 100 fields'
  const seen: string[] = []
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const { lower, folded, isToken } = fieldName(rawHeaders[index] ?? '')
    if (lower !== folded) return 'gate: a field name with "_"'
    if (!isToken) return 'gate: a malformed field name'
    if (controlByte.test(rawHeaders[index + 1] ?? '')) return 'gate: a control byte in a field'
    if (!singleFields.has(lower)) continue
    if (seen.includes(lower)) return `gate: ${lower} stands more than once`
    seen.push(lower)
  }
  return undefined
}

function checkHost({ fields }: Head): string | undefined {
  const host = fields.get('host')
  if (host === undefined) return 'gate: no Host'
  const match = hostForm.exec(host)
  if (!match || Number(match[1] ?? 0) > 65_535) return 'gate: Host is not host or host:port'
  return undefined
}

function checkFraming({ fields, httpVersion }: Head): string | undefined {
  const length = fields.get('content-length')
  const coding = fields.get('transfer-encoding')
  if (length !== undefined && !canonicalLength.test(length)) {
    return 'gate: Content-Length is not a canonical decimal'
  }
  if (coding === undefined) return undefined
  // RFC 9112 section 6.1: chunks in HTTP/1.0 are a sign of a forged or a mishandled message.
  if (httpVersion !== '1.1') return 'gate: Transfer-Encoding in HTTP/1.0'
  if (length !== undefined) return 'gate: both Content-Length and Transfer-Encoding'
  return coding === 'chunked' ? undefined : 'gate: Transfer-Encoding is not exactly "chunked"'
}

/** RFC 9110 section 7.6.1: a listed field is taken off, so listing ours or the framing would change what is judged. */
function checkConnection({ rawHeaders }: Head): string | undefined {
  for (const option of connectionOptions(rawHeaders)) {
    const { isToken } = fieldName(option)
    if (!isToken) return 'gate: a malformed Connection option'
    if (isProtected(option)) return 'gate: Connection lists a field that is not hop-by-hop'
  }
  return undefined
}

function isProtected(name: string): boolean {
  if (name === 'proxy-connection') return false
  if (name === 'transfer-encoding' || name === 'expect' || name === 'trailer') return true
  return name.startsWith('content-') || name.startsWith('mcp-') || fieldName(name).isOwned
}

/** RFC 9110 section 7.8. Anything but WebSocket, h2c above all, would be a tunnel that nobody reads. */
function checkUpgrade({ fields, rawHeaders, method, httpVersion }: Head): string | undefined {
  const upgrade = fields.get('upgrade')
  if (upgrade === undefined) return undefined
  if (upgrade.toLowerCase() !== 'websocket')
    return 'gate: Upgrade to another protocol than websocket'
  const isListed = connectionOptions(rawHeaders).includes('upgrade')
  if (!isListed || method !== 'GET' || httpVersion !== '1.1') {
    return 'gate: Upgrade without Connection, GET and HTTP/1.1'
  }
  if (fields.has('transfer-encoding') || (fields.get('content-length') ?? '0') !== '0') {
    return 'gate: Upgrade with a body'
  }
  return undefined
}

function checkExpect({ fields }: Head): string | undefined {
  const expect = fields.get('expect')
  if (expect === undefined || expect.toLowerCase() === '100-continue') return undefined
  return 'gate: an expectation other than 100-continue'
}

/** `checkFields()` refuses a second of any. */
function readSingleFields(rawHeaders: readonly string[]): ReadonlyMap<string, string> {
  const fields = new Map<string, string>()
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const { lower } = fieldName(rawHeaders[index] ?? '')
    if (singleFields.has(lower)) fields.set(lower, rawHeaders[index + 1] ?? '')
  }
  return fields
}
