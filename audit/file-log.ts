import { statSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../policy/types.ts'
import { createChain, type Chain, type ChainHead, type Envelope } from './chain.ts'
import { AuditError, type AuditLog } from './log.ts'
import { envelopesOf } from './envelopes.ts'
import type { AuditEvent } from './record.ts'
import { openSpool, type Spool, type SpoolOptions } from './spool.ts'
import { settle, unawaited, type Waiting } from './waiting.ts'
import { codeOf, openSink, sinkError, type Sink } from './sink.ts'

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
  /** Where records go when the sink does not take them: requests go on. Absent: those are refused. */
  readonly spool?: SpoolOptions
  /** The sink takes no records, and the spool begins to: why. */
  readonly onSpooling?: (cause: string) => void
  readonly clock: Clock
}

/**
 * Opens the log. A file is continued from its last whole line; what a torn write left stays, on a line of its own.
 * Throws `AuditError` ERR_AUDIT_SINK when the sink cannot be opened, or holds something else than a log.
 */
export async function openAuditLog(options: AuditLogOptions): Promise<AuditLog> {
  const sink = await openSink(options.sink)
  try {
    refuseOneFile(options)
    return new GroupCommitLog(sink, options)
  } catch (error) {
    await sink.close()
    throw error
  }
}

const maxBatchBytes = 1024 * 1024
const maxWaitingBytes = 64 * 1024 * 1024
/** A write in place that took longer has stopped every request and stream: the disk is slow. */
const slowWriteMs = 5
/** Then a thread does the writing for so many times as long: slow writes take half a percent of the time at most. */
const awayFactor = 200
const minRetryMs = 10
const maxRetryMs = 100

/**
 * What comes within one turn of the event loop goes to a file in one write at its end: a thread would cost more than the
 * write, and each request waits for it. A slow disk, a pipe and whatever failed is left to a thread. There, one write is
 * in flight at a time, and what arrives meanwhile goes out in the next one. A sealed line keeps its place: the
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
  #atTurnEnd = false
  /** Monotonic milliseconds until which a slow disk is written to by a thread. */
  #awayUntilMs = Number.NEGATIVE_INFINITY
  /** Ends what a torn write left, so that it stands on a line of its own. */
  #lead: '' | '\n'
  readonly #spool: Spool | undefined
  #healthy = true
  readonly #envelope: () => Envelope

  constructor(sink: Sink, options: AuditLogOptions) {
    this.#sink = sink
    this.#options = options
    this.#envelope = envelopesOf(options)
    this.#lead = sink.unfinished ? '\n' : ''
    this.#spool = options.spool && openSpool(options.spool)
    const left = this.#spool?.takeOver(sink)
    this.#chain = createChain(left?.head ?? sink.head)
    for (const line of left?.lines ?? []) this.#wait({ ...unawaited, bytes: this.#lineBytes(line) })
    if (this.#waiting.length > 0) void this.#writeAll()
  }

  get head(): ChainHead {
    return this.#chain.head
  }

  get backlog(): number {
    return this.#waiting.length
  }

  get spooled(): number {
    return this.#spool?.records ?? 0
  }

  get healthy(): boolean {
    return this.#healthy || (this.#spool !== undefined && !this.#spool.isFull)
  }

  async append(event: AuditEvent): Promise<void> {
    const { maxBacklog } = this.#options
    if (this.#closing.signal.aborted) throw new AuditError('ERR_AUDIT_SINK', 'The log is closed')
    if (this.#waiting.length >= maxBacklog || this.#waitingBytes >= maxWaitingBytes) {
      throw new AuditError('ERR_AUDIT_BACKLOG', `${this.#waiting.length} records wait for the sink`)
    }
    if (this.#spool?.isFull === true && !this.#healthy) {
      throw new AuditError('ERR_AUDIT_BACKLOG', 'The sink takes no records, and the spool is full')
    }
    const line = this.#chain.seal(event, this.#envelope())
    return this.#put(this.#lineBytes(line))
  }

  #lineBytes(line: string): Buffer {
    const bytes = Buffer.from(`${this.#lead}${line}\n`)
    this.#lead = ''
    return bytes
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
    for (const waiting of this.#waiting) settle(waiting, closed)
    this.#spool?.close()
    // Closing waits for the write in flight, and that may hang for as long as the sink does.
    const limit = delay(this.#options.writeTimeoutMs, undefined, { ref: false })
    await Promise.race([this.#sink.close().catch(() => {}), limit])
  }

  #put(bytes: Buffer): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiting: Waiting = { bytes, resolve, reject }
    this.#wait(waiting)
    if (this.#atTurnEnd) return promise
    if (!this.#writing && this.#sink.writeNow && !this.#isAway()) {
      this.#atTurnEnd = true
      setImmediate(() => this.#endTurn())
      return promise
    }
    this.#limit(waiting)
    // Known to fail: no request waits for the time limit of each record.
    if (!this.#healthy) this.#keepAll('sink')
    if (!this.#writing) void this.#writeAll()
    return promise
  }

  /** Puts all that waits into the spool, in order: what is there must go on from what the sink has. */
  #keepAll(cause: string): void {
    if (!this.#spool) return
    const why = { cause, nowMs: this.#options.clock.now() }
    for (const waiting of this.#waiting) {
      if (waiting.kept === true) continue
      if (waiting.bytes.length === 0) {
        settle(waiting)
        continue
      }
      if (this.#spool.records === 0) this.#options.onSpooling?.(cause)
      if (!this.#spool.keep(waiting.bytes, why)) return
      waiting.kept = true
      settle(waiting)
    }
  }

  #wait(waiting: Waiting): void {
    this.#waiting.push(waiting)
    this.#waitingBytes += waiting.bytes.length
  }

  #isAway(): boolean {
    return this.#options.clock.monotonic() < this.#awayUntilMs
  }

  /** Writes what came in this turn; what the file does not take is tried on, and each record has its time limit. */
  #endTurn(): void {
    this.#atTurnEnd = false
    const { clock } = this.#options
    const from = clock.monotonic()
    const batch = this.#nextBatch()
    try {
      this.#took(this.#sink.writeNow?.(this.#bytesOf(batch)) ?? 0)
    } catch (error) {
      this.#failed(batch, error)
    }
    const tookMs = clock.monotonic() - from
    if (tookMs > slowWriteMs) this.#awayUntilMs = from + tookMs * awayFactor
    if (this.#waiting.length === 0) return
    for (const waiting of this.#waiting) if (waiting.kept !== true) this.#limit(waiting)
    void this.#writeAll()
  }

  #limit(waiting: Waiting): void {
    const { writeTimeoutMs } = this.#options
    waiting.timer = setTimeout(() => {
      this.#healthy = false
      this.#keepAll('timeout')
      const message = `The sink did not take the record within ${writeTimeoutMs} ms`
      waiting.reject(new AuditError('ERR_AUDIT_TIMEOUT', message))
    }, writeTimeoutMs)
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
      return this.#took(await this.#sink.write(this.#bytesOf(batch)))
    } catch (error) {
      this.#failed(batch, error)
      return false
    }
  }

  #bytesOf(batch: readonly Waiting[]): Buffer {
    const [first] = batch
    const bytes =
      first && batch.length === 1 ? first.bytes : Buffer.concat(batch.map((one) => one.bytes))
    return bytes.subarray(this.#offset)
  }

  #took(written: number): boolean {
    if (written === 0) return false
    this.#healthy = true
    this.#advance(written)
    return true
  }

  #failed(batch: readonly Waiting[], error: unknown): void {
    // A pipe whose reader is slow is no fault yet: the time limit of each record decides.
    if (codeOf(error) === 'EAGAIN') return
    this.#healthy = false
    this.#keepAll(codeOf(error) ?? 'sink')
    const fault = sinkError('Cannot write to the audit sink', error)
    for (const waiting of batch) settle(waiting, fault)
  }

  #nextBatch(): readonly Waiting[] {
    let size = 0
    const end = this.#waiting.findIndex(({ bytes }) => (size += bytes.length) > maxBatchBytes)
    return end === -1 ? [...this.#waiting] : this.#waiting.slice(0, Math.max(end, 1))
  }

  #advance(written: number): void {
    let left = written + this.#offset
    let done = 0
    for (const waiting of this.#waiting) {
      const { length } = waiting.bytes
      if (length > left) break
      left -= length
      this.#waitingBytes -= length
      done += 1
      settle(waiting)
    }
    const gone = this.#waiting.splice(0, done)
    this.#offset = left
    for (const { kept } of gone) {
      const gap = kept === true ? this.#spool?.sent() : undefined
      // It is lost only with the sink: then the spool tells of the next gap.
      if (gap) this.append(gap).catch(() => undefined)
    }
  }
}

/** By what they are, not by their names: the spool is emptied once the sink has what it holds. */
function refuseOneFile({ sink, spool }: AuditLogOptions): void {
  if (!spool || sink === 'stdout') return
  const [log, kept] = [sink, spool.file].map((path) => statSync(path, { throwIfNoEntry: false }))
  if (log && kept && log.dev === kept.dev && log.ino === kept.ino) {
    throw new AuditError('ERR_AUDIT_SINK', `The spool "${spool.file}" is the audit log itself`)
  }
}
