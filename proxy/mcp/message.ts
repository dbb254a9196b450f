import { createHash } from 'node:crypto'
import { deny, isDenial } from '../../policy/denial.ts'
import {
  isJsonObject,
  parseStrictJson,
  type JsonObject,
  type JsonValue,
} from '../../policy/strict-json.ts'
import type { ArgumentValue, Denial, McpMessage } from '../../policy/types.ts'

/** The message that is judged, and the SHA-256 (hex) of the bytes that it was read from. */
export interface ParsedMcpMessage {
  readonly message: McpMessage
  readonly sha256: string
}

export interface McpMessageOptions {
  readonly maxBytes: number
  /** Containers inside one another, the message itself included. */
  readonly maxDepth: number
  readonly headers: McpHeaders
}

/** Header fields that say what the body says too. A field that was sent twice arrives joined with a comma. */
export interface McpHeaders {
  readonly contentType: string | undefined
  readonly mcpMethod: string | undefined
  readonly mcpName: string | undefined
}

/**
 * Reads one JSON-RPC 2.0 message as every MCP server reads it, or refuses it with `request-refused`. The body is
 * forwarded as it came, so whatever two parsers could read differently is refused: batches, duplicate or case-folded
 * names, unknown top-level members, header fields that disagree with the body.
 *
 * Arguments of `tools/call` reach policy as at most 512 scalars, each text of at most 65536 UTF-16 units. More is
 * refused: a prefix that policy allows says nothing about the rest.
 */
export function parseMcpMessage(
  body: Buffer,
  options: McpMessageOptions,
): ParsedMcpMessage | Denial {
  const { maxBytes, maxDepth, headers } = options
  if (!isJsonType(headers.contentType)) return refused('the content type is not application/json')
  const json = parseStrictJson(body, { maxBytes, maxDepth, foldCase: true })
  if (!json.ok) return refused(json.reason)
  // Batches left MCP with revision 2025-06-18: one message, one decision.
  if (!isJsonObject(json.value)) return refused('not one JSON-RPC message')
  const message = parseRpc(json.value)
  if (isDenial(message)) return message
  const mismatch = headerMismatch(json.value, headers)
  if (mismatch !== undefined) return refused(mismatch)
  return { message, sha256: createHash('sha256').update(body).digest('hex') }
}

const maxIdLength = 256
const maxToolLength = 256
const maxArguments = 512
const maxArgumentLength = 65_536

const requestMembers: ReadonlySet<string> = new Set(['jsonrpc', 'id', 'method', 'params'])
const responseMembers: ReadonlySet<string> = new Set(['jsonrpc', 'id', 'result', 'error'])
const methodPattern = /^[A-Za-z0-9_$./-]{1,128}$/
const notificationPrefix = 'notifications/'
// oxlint-disable-next-line no-control-regex -- these are what is refused
const controlCharacter = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/

/** Which parameter `Mcp-Name` repeats. With any other method the field has nothing to agree with. */
const namedBy: ReadonlyMap<string, string> = new Map([
  ['tools/call', 'name'],
  ['prompts/get', 'name'],
  ['resources/read', 'uri'],
])

function refused(reason: string): Denial {
  return deny('request-refused', `MCP message: ${reason}`)
}

function isJsonType(contentType: string | undefined): boolean {
  return /^application\/json[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?$/i.test(
    contentType ?? '',
  )
}

function parseRpc(rpc: JsonObject): McpMessage | Denial {
  if (rpc['jsonrpc'] !== '2.0') return refused('jsonrpc is not "2.0"')
  return 'method' in rpc ? parseCall(rpc) : parseResponse(rpc)
}

function parseResponse(rpc: JsonObject): McpMessage | Denial {
  if (!hasOnly(rpc, responseMembers)) return refused('a response has a member of no meaning')
  if ('result' in rpc === 'error' in rpc) return refused('neither a call nor one answer')
  if (!isRpcId(rpc['id'])) return refused('id is neither text nor a safe integer')
  return { type: 'response', id: rpc['id'] }
}

function parseCall(rpc: JsonObject): McpMessage | Denial {
  if (!hasOnly(rpc, requestMembers)) return refused('a call has a member of no meaning')
  const { id, method, params } = rpc
  if (typeof method !== 'string' || !methodPattern.test(method)) {
    return refused('method is not a method name')
  }
  if (params !== undefined && !isJsonObject(params)) return refused('params is not an object')
  // A server that ignores a missing id would run a call that policy took for a notification, and the other way round.
  const isNotification = method.startsWith(notificationPrefix)
  if (isNotification !== !('id' in rpc)) {
    return refused('id does not fit the method: requests have one, notifications have none')
  }
  if (isNotification) return { type: 'notification', method }
  if (!isRpcId(id)) return refused('id is neither text nor a safe integer')
  if (method === 'tools/call') return parseToolCall(id, params)
  // A server that folds case would run it as a tool call, and no tool was judged.
  if (method.toLowerCase() === 'tools/call') return refused('method is tools/call in another case')
  return { type: 'request', id, method }
}

function parseToolCall(id: string | number, params: JsonObject | undefined): McpMessage | Denial {
  const tool = params?.['name']
  if (typeof tool !== 'string' || tool === '' || tool.length > maxToolLength) {
    return refused(`params.name is not text of 1 to ${maxToolLength} characters`)
  }
  if (controlCharacter.test(tool)) return refused('params.name has a control character')
  const given = params?.['arguments']
  if (given !== undefined && !isJsonObject(given)) {
    return refused('params.arguments is not an object')
  }
  const args = flattenArguments(given ?? {})
  return isDenial(args) ? args : { type: 'tools/call', id, tool, args }
}

function isRpcId(id: JsonValue | undefined): id is string | number {
  return typeof id === 'string' ? id.length <= maxIdLength : Number.isSafeInteger(id)
}

function hasOnly(rpc: JsonObject, members: ReadonlySet<string>): boolean {
  return Object.keys(rpc).every((name) => members.has(name))
}

/** Each scalar under its RFC 6901 pointer without the leading slash. Empty containers have none and so do not appear. */
function flattenArguments(given: JsonObject): ReadonlyMap<string, ArgumentValue> | Denial {
  const flat = new Map<string, ArgumentValue>()
  // Depth was bounded by the reader, so the recursion is too.
  const add = (value: JsonValue, pointer: string): string | undefined => {
    if (typeof value === 'object' && value !== null) {
      for (const [name, member] of Object.entries(value)) {
        const reason = add(member, `${pointer}/${escapePointer(name)}`)
        if (reason !== undefined) return reason
      }
      return undefined
    }
    if (pointer.length > maxArgumentLength) return 'the name of an argument is too long'
    if (typeof value === 'string' && value.length > maxArgumentLength) {
      return `an argument is longer than ${maxArgumentLength} characters`
    }
    if (flat.size === maxArguments) return `more than ${maxArguments} arguments`
    // Negative zero is another spelling of zero.
    flat.set(pointer.slice(1), value === 0 ? 0 : value)
    return undefined
  }
  const reason = add(given, '')
  return reason === undefined ? flat : refused(reason)
}

function escapePointer(name: string): string {
  return name.replaceAll('~', '~0').replaceAll('/', '~1')
}

/** MC-4: a gateway that routes by header and a server that reads the body must not see two calls. */
function headerMismatch(rpc: JsonObject, headers: McpHeaders): string | undefined {
  const { method, params } = rpc
  const { mcpMethod, mcpName } = headers
  if (mcpMethod !== undefined && mcpMethod !== method) return 'Mcp-Method does not match the body'
  if (mcpName === undefined) return undefined
  const member = typeof method === 'string' ? namedBy.get(method) : undefined
  const name = member !== undefined && isJsonObject(params) ? params[member] : undefined
  if (typeof name !== 'string' || headerText(mcpName) !== name) {
    return 'Mcp-Name does not match the body'
  }
  return undefined
}

const base64Form = /^=\?base64\?([A-Za-z0-9+/]*={0,2})\?=$/

/** A name that a header cannot carry travels as `=?base64?...?=`. undefined when that has more than one reading. */
function headerText(value: string): string | undefined {
  const encoded = base64Form.exec(value)?.[1]
  if (encoded === undefined) return value
  const bytes = Buffer.from(encoded, 'base64')
  const text = bytes.toString('utf8')
  const isCanonical =
    bytes.toString('base64') === encoded && Buffer.from(text, 'utf8').equals(bytes)
  return isCanonical ? text : undefined
}
