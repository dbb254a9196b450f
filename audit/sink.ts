import { closeSync, constants, openSync, readSync, write, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { promisify } from 'node:util'
import { decodeLine, genesis, isTornLine, maxLineBytes, readLink, type ChainHead } from './chain.ts'
import { AuditError } from './log.ts'

/** Where the bytes go, and what is there already. */
export interface Sink {
  /** Gives the number of bytes taken, perhaps fewer than offered. */
  write(bytes: Buffer): Promise<number>
  /** Only where it is expected to return at once: for a regular file, which the page cache takes. */
  writeNow?(bytes: Buffer): number
  close(): Promise<void>
  /** A regular file, whose end is known. */
  readonly isFile: boolean
  /** Whether this line is among the last ones that the file had when it was opened: of 4 MiB. */
  holds(line: string): boolean
  readonly head: ChainHead
  /** The last line lacks its newline. */
  readonly unfinished: boolean
}

/** `stdout`, or a file by its absolute path. Throws `AuditError` ERR_AUDIT_SINK. */
export async function openSink(name: string): Promise<Sink> {
  return name === 'stdout' ? stdoutSink : openFile(name)
}

/** Room for the last whole line and what torn writes may have left after it. */
const maxTailBytes = 4 * maxLineBytes

const writeTo = promisify(write)

/** Not `process.stdout`: into a pipe it writes synchronously, and a slow reader would stop every request. */
const stdoutSink: Sink = {
  write: async (bytes) => (await writeTo(1, bytes)).bytesWritten,
  close: async () => {},
  isFile: false,
  holds: () => false,
  head: genesis,
  unfinished: false,
}

async function openFile(path: string): Promise<Sink> {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK } = constants
  try {
    // Non-blocking, for pipes: opening one without a reader fails, and a full one holds no thread.
    const file = await open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o600)
    try {
      const stat = await file.stat()
      return {
        ...(stat.isFile() ? await readEnd(path, stat.size) : { head: genesis, unfinished: false }),
        ...(stat.isFile() && { writeNow: (bytes: Buffer) => writeSync(file.fd, bytes) }),
        isFile: stat.isFile(),
        holds: (line) => stat.isFile() && readEndNow(path, stat.size).includes(`\n${line}\n`),
        write: async (bytes) => (await file.write(bytes)).bytesWritten,
        close: () => file.close(),
      }
    } catch (error) {
      await file.close()
      throw error
    }
  } catch (error) {
    if (error instanceof AuditError) throw error
    throw sinkError(`Cannot open the audit log "${path}"`, error)
  }
}

/** Where the chain of a file stands: at its last line that is whole, wherever torn writes left their bytes. */
async function readEnd(path: string, size: number): Promise<Pick<Sink, 'head' | 'unfinished'>> {
  const tail = await readTail(path, size)
  const lines = tail.toString('latin1').split('\n')
  const unfinished = lines.at(-1) !== ''
  const texts = lines
    .filter((line) => line !== '')
    .map((line) => decodeLine(Buffer.from(line, 'latin1')))
  for (const text of texts.toReversed()) {
    const link = readLink(text)
    if (typeof link !== 'string') return { head: link, unfinished }
  }
  // Not one record: at most the first one, torn. Anything else is no log, or its last records are damaged.
  if (tail.length === size && texts.every(isTornLine)) return { head: genesis, unfinished }
  throw new AuditError('ERR_AUDIT_SINK', `"${path}" does not end like an audit log`)
}

async function readTail(path: string, size: number): Promise<Buffer> {
  const length = Math.min(size, maxTailBytes)
  await using file = await open(path, 'r')
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length)
  return buffer.subarray(0, bytesRead)
}

/** Read anew: it is asked for at a start at most, and the end of the log need not be held until then. */
function readEndNow(path: string, size: number): string {
  const fd = openSync(path, 'r')
  try {
    const bytes = Buffer.alloc(Math.min(size, maxTailBytes))
    const count = readSync(fd, bytes, 0, bytes.length, size - bytes.length)
    return `\n${bytes.toString('utf8', 0, count)}`
  } finally {
    closeSync(fd)
  }
}

export function sinkError(message: string, error: unknown): AuditError {
  const code = codeOf(error)
  return new AuditError('ERR_AUDIT_SINK', `${message}${code ? `: ${code}` : ''}`, { cause: error })
}

export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
