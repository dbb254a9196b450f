import { isUtf8 } from 'node:buffer'
import { hash as digestOf } from 'node:crypto'
import canonicalize from 'canonicalize'
import { splitText } from './canonical.ts'
import type { AuditEvent, AuditRecord } from './record.ts'

/** Seals events into lines. Each line names the hash of the one before: none can be changed, cut out or moved. */
export interface Chain {
  /** The line without its newline. Throws `ChainError`; then no number is used up. */
  seal(event: AuditEvent, envelope: Envelope): string
  /** The line to be continued next. */
  readonly head: ChainHead
}

/** What a record says besides its event and its place in the chain. */
export type Envelope = Pick<AuditRecord, 'ts' | 'mono_ns' | 'sidecar'>

/** The last line of a chain: its number, and its hash as 64 hex digits. */
export interface ChainHead {
  readonly seq: number
  readonly hash: string
}

export type ChainFault = 'hash mismatch' | 'prev mismatch' | 'seq gap' | 'not JSON'

/** Line numbers begin with 1. */
export interface ChainReport {
  /** Lines that hold what was sealed. */
  readonly records: number
  /** Chains that begin in the input: 1 unless restarts are accepted, 0 without a record. */
  readonly chains: number
  /** Lines that a write left unfinished. Where a record follows, none is missing; at the end the last one may be. */
  readonly torn: readonly number[]
  /** The first line that breaks the chain. Absent: the chain is intact. */
  readonly bad?: { readonly line: number; readonly fault: ChainFault }
  /** `ts` of the first and the last record before the break. */
  readonly first?: string
  readonly last?: string
}

/** An event cannot be sealed: it has no canonical form, or is too long. */
export class ChainError extends Error {
  override readonly name = 'ChainError'
  readonly code = 'ERR_AUDIT_CHAIN'
}

/** What the first line of a chain continues: number 0, 64 zeros. */
export const genesis: ChainHead = { seq: 0, hash: '0'.repeat(64) }

/** No line has more bytes: a longer record is refused, a longer line is not one. */
export const maxLineBytes = 1024 * 1024

/** A chain that goes on after `from`, by default a new one. */
export function createChain(from: ChainHead = genesis): Chain {
  let head = from
  return {
    get head() {
      return head
    },
    seal(event, { ts, mono_ns, sidecar }) {
      const seq = head.seq + 1
      const body = { ...event, v: 1, seq, ts, mono_ns, sidecar, prev: head.hash }
      const [before, after] = splitAtHash(body)
      const digest = sha256(`{${before}${after}}`)
      const line = `{${before}"hash":"${digest}",${after}}`
      if (Buffer.byteLength(line) > maxLineBytes) {
        throw new ChainError(`The record has more than ${maxLineBytes} bytes`)
      }
      head = { seq, hash: digest }
      return line
    },
  }
}

/**
 * Reads a log from its first line and stops at the first one that breaks the chain. `restarts` accepts that a chain
 * begins anew between lines, as in collected standard output: then the end of an earlier chain is not protected.
 */
export async function verifyChain(
  lines: AsyncIterable<string>,
  { restarts = false }: { readonly restarts?: boolean } = {},
): Promise<ChainReport> {
  let head = genesis
  let number = 0
  const seen: Seen = { records: 0, chains: 0, torn: [] }
  for await (const line of lines) {
    number += 1
    if (isTornLine(line)) {
      seen.torn.push(number)
      continue
    }
    const link = readLink(line)
    if (typeof link === 'string') return { ...seen, bad: { line: number, fault: link } }
    const starts = follows(link, genesis) === undefined && (restarts || seen.records === 0)
    const fault = starts ? undefined : follows(link, head)
    if (fault !== undefined) return { ...seen, ...placeFault(fault, { number, torn: seen.torn }) }
    head = link
    seen.records += 1
    seen.chains += starts ? 1 : 0
    seen.first ??= link.ts
    seen.last = link.ts
  }
  return seen
}

/** The place of a whole, unchanged line in its chain, or what is wrong with the line by itself. */
export function readLink(line: string): (ChainHead & Link) | ChainFault {
  const record = parseObject(line)
  if (!record) return 'not JSON'
  const { hash, ...body } = record
  const { seq, prev, ts } = body
  if (typeof seq !== 'number' || typeof prev !== 'string' || typeof ts !== 'string') {
    return 'hash mismatch'
  }
  if (typeof hash !== 'string' || hash !== hashOf(body)) return 'hash mismatch'
  // The same value in other bytes ("\u001F" for "\u001f", a space) is a change as well: a line is its canonical form.
  if (canonicalize(record) !== line) return 'hash mismatch'
  return { seq, hash, prev, ts }
}

/** Whether a line is the beginning of a record whose write did not come to its end. */
export function isTornLine(line: string): boolean {
  return line.startsWith('{') && !line.endsWith(lineEnd) && parseObject(line) === undefined
}

/** The lines of a log from its bytes. The last one may lack its newline. */
export async function* splitLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of chunks) {
    let start = 0
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, start)) {
      yield decodeLine(Buffer.concat([rest, chunk.subarray(start, end)]))
      rest = Buffer.alloc(0)
      start = end + 1
    }
    // One byte too many stays, so that the line is seen to be too long; what follows is dropped.
    rest = Buffer.concat([rest, chunk.subarray(start)]).subarray(0, maxLineBytes + 1)
  }
  if (rest.length > 0) yield decodeLine(rest)
}

/** The text of a line. Bytes that are no UTF-8, or too many, become a text that is no JSON either. */
export function decodeLine(bytes: Buffer): string {
  // Decoding alone would not do: several broken sequences become the same U+FFFD.
  if (bytes.length > maxLineBytes) return '\u{FFFD}'
  if (isUtf8(bytes)) return bytes.toString('utf8')
  // A torn line may end within a character.
  const cut = [1, 2, 3].find((count) => isUtf8(bytes.subarray(0, -count)))
  return `${cut === undefined ? '' : bytes.toString('utf8', 0, bytes.length - cut)}\u{FFFD}`
}

const newline = 0x0a

/** `v` sorts last of all members, and within a text its quotes would be escaped: only a whole line ends so. */
const lineEnd = '"v":1}'

interface Link {
  readonly prev: string
  readonly ts: string
}

interface Seen {
  records: number
  chains: number
  readonly torn: number[]
  first?: string
  last?: string
}

/** What keeps a line from standing right after this head; undefined: nothing does. */
export function follows(link: ChainHead & Link, head: ChainHead): ChainFault | undefined {
  if (link.seq !== head.seq + 1) return 'seq gap'
  return link.prev === head.hash ? undefined : 'prev mismatch'
}

/** A line that looks torn, with a gap after it, was a whole one before somebody changed its end. */
function placeFault(
  fault: ChainFault,
  { number, torn }: { readonly number: number; readonly torn: readonly number[] },
): Pick<ChainReport, 'torn' | 'bad'> {
  const before = number - 1
  if (torn.at(-1) !== before) return { torn, bad: { line: number, fault } }
  return { torn: torn.slice(0, -1), bad: { line: before, fault: 'not JSON' } }
}

/**
 * The canonical members that sort before `hash`, and those after: the whole is serialized once, for the hash and for the
 * line. There are always some after: `v` is.
 */
function splitAtHash(
  body: Readonly<Record<string, unknown>>,
): readonly [before: string, after: string] {
  try {
    return splitText(body, 'hash')
  } catch (error) {
    throw new ChainError('The event has no canonical JSON form', { cause: error })
  }
}

/** Undefined when the value has no canonical form, such as text with half a surrogate pair. */
function hashOf(body: object): string | undefined {
  try {
    const text = canonicalize(body)
    return text === undefined ? undefined : sha256(text)
  } catch {
    return undefined
  }
}

function sha256(text: string): string {
  return digestOf('sha256', text)
}

function parseObject(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
