import { isUtf8 } from 'node:buffer'
import {
  isJsonObject,
  parseStrictJson,
  type JsonObject,
  type JsonValue,
} from '../../policy/strict-json.ts'
import type { McpMessage } from '../../policy/types.ts'
import { denialOfCut } from '../denial.ts'
import type { Cut } from '../exchange.ts'
import { ResponseFilterError, type ResponseFilter, type ResponseHead } from '../response-filter.ts'
import { mcpFinalMessage } from './denial.ts'

export interface McpResponseFilterOptions {
  /** What was asked. */
  readonly message: McpMessage
  /** Whether this task may call a tool: asked once for each tool of a list. */
  allowTool(tool: string): boolean
  readonly decisionId: string
  readonly txn: string
  /** Of a JSON answer to `tools/list`, and of one event of any event stream. */
  readonly maxBytes: number
}

/**
 * Shows an agent only the tools that its task may call, and ends a cut answer with the JSON-RPC message that its client
 * waits for.
 *
 * `tools/list` is filtered whole or not at all: an answer that is over the limit, not strict JSON, or of another media
 * type throws `ResponseFilterError`. Event streams leave in whole events: the part of an event that has arrived so far
 * is held back, so that a final event never lands inside another one. An event over the limit goes out unheld, except
 * in answer to `tools/list`, and the stream then has no final event any more.
 */
export function createMcpResponseFilter(options: McpResponseFilterOptions): ResponseFilter {
  let answer: Answer = unchanged
  return {
    head: (head) => {
      answer = answerFor(head, options)
      return answer === unchanged ? 'pass' : 'rewrite'
    },
    chunk: (chunk) => answer.chunk(chunk),
    end: () => answer.end(),
    final: (cut) => {
      if (!answer.takesFinal()) return undefined
      answer = unchanged
      return finalEvent(cut, options)
    },
  }
}

/** One way of handling the body of an answer. */
interface Answer {
  chunk(chunk: Buffer): Buffer | undefined
  end(): Buffer | undefined
  takesFinal(): boolean
}

const unchanged: Answer = {
  chunk: (chunk) => chunk,
  end: () => undefined,
  takesFinal: () => false,
}

function refuseType(): never {
  throw unreadable('neither JSON nor an event stream')
}
const unfilterable: Answer = { chunk: refuseType, end: refuseType, takesFinal: () => false }

const maxListDepth = 64

function answerFor(
  { status, contentType }: ResponseHead,
  options: McpResponseFilterOptions,
): Answer {
  const { message } = options
  if (message.type === 'notification' || message.type === 'response') return unchanged
  // Clients read a body with any 2xx as they read it with 200, so a list is not only filtered with 200.
  if (status < 200 || status > 299) return unchanged
  const isList = message.type === 'request' && message.method === 'tools/list'
  if (contentType === 'text/event-stream') return eventStream(options, message.id, isList)
  if (!isList) return unchanged
  if (contentType === 'application/json') return jsonList(options)
  return status === 202 || status === 204 ? unchanged : unfilterable
}

function jsonList(options: McpResponseFilterOptions): Answer {
  const chunks: Buffer[] = []
  let length = 0
  return {
    chunk: (chunk) => {
      length += chunk.length
      if (length > options.maxBytes) throw tooLong(options)
      chunks.push(chunk)
      return undefined
    },
    end: () => {
      if (length === 0) return undefined
      const body = Buffer.concat(chunks)
      const filtered = filterList(body, options)
      return filtered === undefined ? body : Buffer.from(filtered)
    },
    // Half a JSON document takes no ending.
    takesFinal: () => false,
  }
}

function eventStream(
  options: McpResponseFilterOptions,
  pendingId: string | number,
  isList: boolean,
): Answer {
  const framer = createEventFramer()
  let isAnswered = false
  let isUnheld = false

  const admit = (event: Buffer): Buffer => {
    if (event.length > options.maxBytes) {
      if (isList) throw tooLong(options)
      isUnheld = true
    }
    if (isUnheld) return event
    isAnswered ||= answersRequest(event, pendingId)
    return isList ? filterEvent(event, options) : event
  }

  return {
    chunk: (chunk) => {
      if (isUnheld) return chunk
      const out = framer.push(chunk).map(admit)
      if (isUnheld || framer.heldBytes() > options.maxBytes) out.push(admit(framer.take()))
      return out.length === 0 ? undefined : Buffer.concat(out)
    },
    end: () => {
      const rest = framer.take()
      // An event without its blank line is one that clients drop. A list loses it here: nobody has filtered it.
      return rest.length === 0 || isList ? undefined : rest
    },
    takesFinal: () => !isAnswered && !isUnheld,
  }
}

/** Begins with the blank line that ends whatever a client may still take for open. */
function finalEvent(cut: Cut, options: McpResponseFilterOptions): Buffer | undefined {
  const { message, decisionId, txn } = options
  const final = mcpFinalMessage(message, denialOfCut(cut), { decisionId, txn })
  return final && Buffer.from(`\n\nevent: message\ndata: ${JSON.stringify(final)}\n\n`)
}

/** The list with what this task may call, as JSON; undefined when the message holds no list. */
function filterList(json: Buffer, options: McpResponseFilterOptions): string | undefined {
  const { maxBytes } = options
  const parsed = parseStrictJson(json, { maxBytes, maxDepth: maxListDepth })
  if (!parsed.ok) throw unreadable(parsed.reason)
  if (!isJsonObject(parsed.value)) throw unreadable('not one JSON-RPC message')
  const { result } = parsed.value
  if (!isJsonObject(result) || !('tools' in result)) return undefined
  const { tools } = result
  if (!Array.isArray(tools)) throw unreadable('tools is not an array')
  const allowed = tools.filter((tool: JsonValue) => isAllowed(tool, options))
  return JSON.stringify({
    ...parsed.value,
    result: { ...result, tools: allowed, ...unshared(result) },
  })
}

function isAllowed(tool: JsonValue, options: McpResponseFilterOptions): boolean {
  return isJsonObject(tool) && typeof tool['name'] === 'string' && options.allowTool(tool['name'])
}

/** What one task may call is no list for another: a server that lets clients cache its list is overruled. */
function unshared(result: JsonObject): JsonObject {
  return {
    ...('ttlMs' in result && { ttlMs: 0 }),
    ...('cacheScope' in result && { cacheScope: 'private' }),
  }
}

/** Replaces the data of an event that holds a list, and keeps its other fields. Other events keep their bytes. */
function filterEvent(event: Buffer, options: McpResponseFilterOptions): Buffer {
  if (!isUtf8(event)) throw unreadable('not UTF-8')
  const lines = eventLines(event.toString('utf8'))
  const data = eventData(lines)
  if (data === '') return event
  const filtered = filterList(Buffer.from(data), options)
  if (filtered === undefined) return event
  let isWritten = false
  const out = lines.flatMap((line) => {
    if (dataOf(line) === undefined) return [line]
    if (isWritten) return []
    isWritten = true
    return [`data: ${filtered}${/[\r\n]*$/.exec(line)?.[0] ?? ''}`]
  })
  return Buffer.from(out.join(''))
}

/** Read as the client reads it, not strictly: it is what the client takes for its answer that counts. */
function answersRequest(event: Buffer, pendingId: string | number): boolean {
  const data = eventData(eventLines(event.toString('utf8')))
  if (data === '') return false
  try {
    const message: unknown = JSON.parse(data)
    if (typeof message !== 'object' || message === null || 'method' in message) return false
    return 'id' in message && message.id === pendingId
  } catch {
    return false
  }
}

/** The lines, each with its ending. */
function eventLines(event: string): readonly string[] {
  return event.match(/[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$/g) ?? []
}

function eventData(lines: readonly string[]): string {
  return lines.flatMap((line) => dataOf(line) ?? []).join('\n')
}

/**
 * The value of a `data` field; undefined for other lines. A byte order mark would hide the field from us, but not from
 * clients: they strip it at the start, some of them twice.
 */
function dataOf(line: string): string | undefined {
  return /^\uFEFF*data(?:: ?|(?=[\r\n]|$))([^\r\n]*)/.exec(line)?.[1]
}

interface EventFramer {
  /** The events that are complete with this chunk, each with its blank line. Joined they are what was pushed. */
  push(chunk: Buffer): readonly Buffer[]
  heldBytes(): number
  /** Gives up what is held. */
  take(): Buffer
}

const lineFeed = 0x0a
const carriageReturn = 0x0d

/** Cuts an event stream after each blank line, wherever the chunks are cut (WHATWG HTML section 9.2.6). */
function createEventFramer(): EventFramer {
  let held: Buffer[] = []
  let heldBytes = 0
  let isLineEmpty = true
  let isAfterReturn = false

  const take = (): Buffer => {
    const bytes = Buffer.concat(held)
    held = []
    heldBytes = 0
    return bytes
  }
  const hold = (bytes: Buffer): void => {
    if (bytes.length === 0) return
    held.push(bytes)
    heldBytes += bytes.length
  }
  /** Whether an event ends with this byte. */
  const isEnd = (byte: number, isFirst: boolean): boolean => {
    // The second half of CR LF ends nothing. After an event it goes out at once: clients wait for it.
    if (byte === lineFeed && isAfterReturn) {
      isAfterReturn = false
      return isFirst
    }
    isAfterReturn = byte === carriageReturn
    const isBreak = isAfterReturn || byte === lineFeed
    const isBlankLine = isBreak && isLineEmpty
    isLineEmpty = isBreak
    return isBlankLine
  }

  return {
    push: (chunk) => {
      const events: Buffer[] = []
      let start = 0
      for (let at = 0; at < chunk.length; at++) {
        if (!isEnd(chunk.readUInt8(at), heldBytes === 0 && at === start)) continue
        hold(chunk.subarray(start, at + 1))
        events.push(take())
        start = at + 1
      }
      hold(chunk.subarray(start))
      return events
    },
    heldBytes: () => heldBytes,
    take,
  }
}

function unreadable(reason: string): ResponseFilterError {
  return new ResponseFilterError(`The answer to tools/list cannot be filtered: ${reason}`)
}

function tooLong({ maxBytes }: McpResponseFilterOptions): ResponseFilterError {
  return unreadable(`longer than ${maxBytes} bytes`)
}
