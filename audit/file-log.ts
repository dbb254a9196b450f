import { constants, write } from 'node:fs'
import { open } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Clock } from '../policy/types.ts'
import {
  createChain,
  decodeLine,
  genesis,
  isTornLine,
  maxLineBytes,
  readLink,
  type Chain,
  type ChainHead,
} from './chain.ts'
import { AuditError, type AuditLog } from './log.ts'
import type { AuditEvent } from './record.ts'

export interface AuditLogOptions {
  /** `stdout`, or the absolute path of a file that no other process appends to. */
  readonly sink: string
  readonly instance: string
  readonly version: string
  /** Asked for every record: a reload changes it. */
  readonly configSha: () => string
  /** The most records that wait for the sink. */
  readonly maxBacklog: number
  readonly writeTimeoutMs: number
  readonly clock: Clock
}

/**
 * Opens the log. A file is continued from its last whole line; what a torn write left stays, on a line of its own.
 * Throws `AuditError` ERR_AUDIT_SINK when the sink cannot be opened, or holds something else than a log.
 */
export async function openAuditLog(options: AuditLogOptions): Promise<AuditLog> {
  const sink = options.sink === 'stdout' ? stdoutSink : await openFile(options.sink)
  return new GroupCommitLog(sink, options)
}

/** Where the bytes go, and what is there already. */
interface Sink {
  /** Gives the number of bytes taken, perhaps fewer than offered. */
  write(bytes: Buffer): Promise<number>
  close(): Promise<void>
  readonly head: ChainHead
  /** The last line lacks its newline. */
  readonly unfinished: boolean
}

interface Waiting {
  readonly bytes: Buffer
  readonly settle: (error?: AuditError) => void
}

const maxBatchBytes = 1024 * 1024
const maxWaitingBytes = 64 * 1024 * 1024
const minRetryMs = 10
const maxRetryMs = 100
/** Room for the last whole line and what torn writes may have left after it. */
const maxTailBytes = 4 * maxLineBytes

/**
 * One write is in flight at a time; what arrives meanwhile goes out in the next one. A sealed line keeps its place: the
 * next one names its hash. So a write that failed is tried again from the byte where it stopped, and a record whose
 * append was rejected may still appear. That is on the safe side: it tells of a request that was refused.
 */
class GroupCommitLog implements AuditLog {
  readonly #sink: Sink
  readonly #options: AuditLogOptions
  readonly #chain: Chain
  readonly #closing = new AbortController()
  #waiting: Waiting[] = []
  #waitingBytes = 0
  /** Bytes of the first waiting line that the sink has already. */
  #offset = 0
  #writing = false
  /** Ends what a torn write left, so that it stands on a line of its own. */
  #lead: '' | '\n'
  #healthy = true

  constructor(sink: Sink, options: AuditLogOptions) {
    this.#sink = sink
    this.#options = options
    this.#chain = createChain(sink.head)
    this.#lead = sink.unfinished ? '\n' : ''
  }

  get head(): ChainHead {
    return this.#chain.head
  }

  get backlog(): number {
    return this.#waiting.length
  }

  get healthy(): boolean {
    return this.#healthy
  }

  async append(event: AuditEvent): Promise<void> {
    const { maxBacklog, clock, instance, version, configSha } = this.#options
    if (this.#closing.signal.aborted) throw new AuditError('ERR_AUDIT_SINK', 'The log is closed')
    if (this.#waiting.length >= maxBacklog || this.#waitingBytes >= maxWaitingBytes) {
      throw new AuditError('ERR_AUDIT_BACKLOG', `${this.#waiting.length} records wait for the sink`)
    }
    const line = this.#chain.seal(event, {
      ts: new Date(clock.now()).toISOString(),
      mono_ns: Math.round(clock.monotonic() * 1e6).toFixed(0),
      sidecar: { instance, version, config_sha: configSha() },
    })
    const bytes = Buffer.from(`${this.#lead}${line}\n`)
    this.#lead = ''
    return this.#put(bytes)
  }

  /** Rejects like `append()` when not everything went out. */
  async flush(): Promise<void> {
    if (this.#waiting.length > 0) await this.#put(Buffer.alloc(0))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing.signal.aborted) return
    // Records that nobody waits for any more are tried one last time; whoever must know of them calls flush().
    await this.flush().catch(() => {})
    this.#closing.abort()
    const closed = new AuditError('ERR_AUDIT_SINK', 'The log was closed before the record went out')
    for (const { settle } of this.#waiting) settle(closed)
    // Closing waits for the write in flight, and that may hang for as long as the sink does.
    const limit = delay(this.#options.writeTimeoutMs, undefined, { ref: false })
    await Promise.race([this.#sink.close().catch(() => {}), limit])
  }

  #put(bytes: Buffer): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const { writeTimeoutMs } = this.#options
    const timer = setTimeout(() => {
      this.#healthy = false
      const message = `The sink did not take the record within ${writeTimeoutMs} ms`
      reject(new AuditError('ERR_AUDIT_TIMEOUT', message))
    }, writeTimeoutMs)
    this.#waiting.push({
      bytes,
      settle: (error) => {
        clearTimeout(timer)
        if (error) reject(error)
        else resolve()
      },
    })
    this.#waitingBytes += bytes.length
    if (!this.#writing) void this.#writeAll()
    return promise
  }

  async #writeAll(): Promise<void> {
    this.#writing = true
    let retryMs = minRetryMs
    while (this.#waiting.length > 0 && !this.#closing.signal.aborted) {
      if (await this.#writeBatch()) {
        retryMs = minRetryMs
        continue
      }
      await delay(retryMs, undefined, { signal: this.#closing.signal }).catch(() => {})
      retryMs = Math.min(retryMs * 2, maxRetryMs)
    }
    this.#writing = false
  }

  /** Whether the sink took anything. */
  async #writeBatch(): Promise<boolean> {
    const batch = this.#nextBatch()
    try {
      const written = await this.#sink.write(
        Buffer.concat(batch.map(({ bytes }) => bytes)).subarray(this.#offset),
      )
      if (written === 0) return false
      this.#healthy = true
      this.#advance(written)
      return true
    } catch (error) {
      // A pipe whose reader is slow is no fault yet: the time limit of each record decides.
      if (codeOf(error) === 'EAGAIN') return false
      this.#healthy = false
      const fault = sinkError('Cannot write to the audit sink', error)
      for (const { settle } of batch) settle(fault)
      return false
    }
  }

  #nextBatch(): readonly Waiting[] {
    let size = 0
    const end = this.#waiting.findIndex(({ bytes }) => (size += bytes.length) > maxBatchBytes)
    return end === -1 ? [...this.#waiting] : this.#waiting.slice(0, Math.max(end, 1))
  }

  #advance(written: number): void {
    let left = written + this.#offset
    let done = 0
    for (const { bytes, settle } of this.#waiting) {
      if (bytes.length > left) break
      left -= bytes.length
      this.#waitingBytes -= bytes.length
      done += 1
      settle()
    }
    this.#waiting.splice(0, done)
    this.#offset = left
  }
}

const writeTo = promisify(write)

/** Not `process.stdout`: into a pipe it writes synchronously, and a slow reader would stop every request. */
const stdoutSink: Sink = {
  write: async (bytes) => (await writeTo(1, bytes)).bytesWritten,
  close: async () => {},
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

function sinkError(message: string, error: unknown): AuditError {
  const code = codeOf(error)
  return new AuditError('ERR_AUDIT_SINK', `${message}${code ? `: ${code}` : ''}`, { cause: error })
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
