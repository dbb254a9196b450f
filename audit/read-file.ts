import {
  isTornLine,
  readLink,
  splitLines,
  verifyChain,
  type ChainHead,
  type ChainReport,
} from './chain.ts'
import { readRecord, type ReadRecord } from './read-record.ts'

/** One line that the chain accepts. */
export interface AcceptedLine {
  readonly line: string
  readonly place: ChainHead & { readonly prev: string }
  /** Undefined when it is no record of this version. */
  readonly record: ReadRecord | undefined
}

interface ReadOptions {
  readonly restarts?: boolean
  readonly use: (accepted: AcceptedLine) => void | Promise<void>
}

/** Reads a log once and hands on each record that the chain accepts, up to the first line that breaks it. */
export async function readVerified(
  chunks: AsyncIterable<Uint8Array>,
  { restarts = false, use }: ReadOptions,
): Promise<ChainReport> {
  return verifyChain(handOn(splitLines(chunks), use), { restarts })
}

/** The verifier asks for the next line only when it has accepted the one before. */
async function* handOn(
  lines: AsyncIterable<string>,
  use: ReadOptions['use'],
): AsyncGenerator<string> {
  for await (const line of lines) {
    yield line
    if (isTornLine(line)) continue
    const place = readLink(line)
    if (typeof place !== 'string') await use({ line, place, record: readRecord(line) })
  }
}
