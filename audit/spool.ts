import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs'
import { follows, readLink, type ChainHead } from './chain.ts'
import { AuditError } from './log.ts'
import type { AuditEvent } from './record.ts'
import { sinkError, type Sink } from './sink.ts'

export interface SpoolOptions {
  /** Absolute path; on another disk than the sink, or it fails with it. */
  readonly file: string
  readonly maxBytes: number
}

/** Records that the sink has not taken, in a file: requests go on without it, and the end of the process loses none. */
export interface Spool {
  /** Records that are here and not in the sink. */
  readonly records: number
  /** It takes nothing more until all that is here has reached the sink. */
  readonly isFull: boolean
  /** False when it does not take the line. `cause`: why the sink did not. */
  keep(bytes: Buffer, why: { readonly cause: string; readonly nowMs: number }): boolean
  /** One that was kept has reached the sink. Gives the event that tells of the gap when it was the last. */
  sent(): AuditEvent | undefined
  /** The lines that an earlier process left and the sink does not have. Throws `AuditError` when they do not go on from it. */
  takeOver(sink: LogEnd): LeftLines
  close(): void
}

type LogEnd = Pick<Sink, 'head' | 'isFile' | 'holds'>

interface LeftLines {
  readonly lines: readonly string[]
  /** Where the chain goes on. */
  readonly head: ChainHead
}

/** Throws `AuditError` ERR_AUDIT_SINK when the file cannot be used. */
export function openSpool({ file, maxBytes }: SpoolOptions): Spool {
  const { fd, size: found } = openFile(file)
  let size = found
  let records = 0
  let isFull = false
  let isClosed = false
  let gap: { readonly cause: string; readonly since: string; kept: number } | undefined
  const begin = (cause: string, nowMs: number): NonNullable<typeof gap> =>
    (gap ??= { cause, since: new Date(nowMs).toISOString(), kept: 0 })
  const clear = (): void => {
    // The number of a closed file may be that of another by now.
    if (isClosed) return
    ftruncateSync(fd, 0)
    size = 0
    isFull = false
  }
  return {
    get records() {
      return records
    },
    get isFull() {
      return isFull
    },
    keep(bytes, { cause, nowMs }) {
      const began = begin(cause, nowMs)
      // Once one is missing, none may follow it: what is here must be a piece of the chain.
      isFull ||= isClosed || size + bytes.length > maxBytes || !writeWhole(fd, { bytes, size })
      if (isFull) return false
      size += bytes.length
      records += 1
      began.kept += 1
      return true
    },
    sent() {
      records -= 1
      if (records > 0 || !gap) return undefined
      const { cause, since, kept } = gap
      gap = undefined
      clear()
      return { type: 'gap', detail: { cause, since, records: kept } }
    },
    takeOver(sink) {
      const left = continuing(readLines(file), { file, sink })
      const first = left.lines[0]
      if (first === undefined) clear()
      else begin('restart', Date.parse(timeOf(first))).kept = left.lines.length
      records = left.lines.length
      return left
    },
    close() {
      if (!isClosed) closeSync(fd)
      isClosed = true
    },
  }
}

function openFile(file: string): { readonly fd: number; readonly size: number } {
  try {
    const fd = openSync(file, constants.O_RDWR | constants.O_APPEND | constants.O_CREAT, 0o600)
    return { fd, size: fstatSync(fd).size }
  } catch (error) {
    throw sinkError(`Cannot open the audit spool "${file}"`, error)
  }
}

/** In place: it is for when the sink fails, and the request waits for it anyway. */
function writeWhole(
  fd: number,
  { bytes, size }: { readonly bytes: Buffer; readonly size: number },
): boolean {
  try {
    if (writeSync(fd, bytes) === bytes.length) return true
    ftruncateSync(fd, size)
    return false
  } catch {
    return false
  }
}

/** Without what was not written to its end: no request went on because of it. */
function readLines(file: string): readonly string[] {
  const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1)
  return lines.filter((line) => line !== '')
}

/**
 * A pipe and standard output have no end to continue: there the lines go out as they are, before a new chain. A file has
 * either the last of the lines that are no newer than its end, and by the links all before it, or it is another log: then
 * nothing here may be taken for written.
 */
function continuing(
  lines: readonly string[],
  { file, sink }: { readonly file: string; readonly sink: LogEnd },
): LeftLines {
  if (!sink.isFile) return { lines, head: sink.head }
  let last: ChainHead | undefined
  const missing: string[] = []
  for (const line of lines) {
    const link = readLink(line)
    if (typeof link === 'string') throw foreign(file)
    if (last && follows(link, last) !== undefined) throw foreign(file)
    last = link
    if (link.seq <= sink.head.seq) continue
    if (missing.length === 0 && follows(link, sink.head) !== undefined) throw foreign(file)
    missing.push(line)
  }
  if (missing.length > 0 && last) return { lines: missing, head: last }
  const end = lines.at(-1)
  if (end !== undefined && last?.hash !== sink.head.hash && !sink.holds(end)) throw foreign(file)
  return { lines: [], head: sink.head }
}

function foreign(file: string): AuditError {
  return new AuditError(
    'ERR_AUDIT_SINK',
    `The spool "${file}" has records that the log lacks, and does not go on where the log ends: put the log back, or move the spool away`,
  )
}

function timeOf(line: string): string {
  const link = readLink(line)
  return typeof link === 'string' ? new Date(0).toISOString() : link.ts
}
