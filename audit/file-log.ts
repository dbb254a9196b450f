import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../policy/types.ts'
import { createChain, type Chain, type ChainHead } from './chain.ts'
import { AuditError, type AuditLog } from './log.ts'
import type { AuditEvent, AuditRecord } from './record.ts'
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
  readonly clock: Clock
}

/**
 * Opens the log. A file is continued from its last whole line; what a torn write left stays, on a line of its own.
 * Throws `AuditError` ERR_AUDIT_SINK when the sink cannot be opened, or holds something else than a log.
 */
export async function openAuditLog(options: AuditLogOptions): Promise<AuditLog> {
  return new GroupCommitLog(await openSink(options.sink), options)
}

interface Waiting {
  readonly bytes: Buffer
  readonly resolve: () => void
  readonly reject: (error: AuditError) => void
  /** The time limit, once it is known that the record does not go out within this turn of the event loop. */
  timer?: NodeJS.Timeout
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
  #healthy = true
  #sidecar: AuditRecord['sidecar'] | undefined
  #lastMs = Number.NaN
  #lastText = ''

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
    const { maxBacklog, clock } = this.#options
    if (this.#closing.signal.aborted) throw new AuditError('ERR_AUDIT_SINK', 'The log is closed')
    if (this.#waiting.length >= maxBacklog || this.#waitingBytes >= maxWaitingBytes) {
      throw new AuditError('ERR_AUDIT_BACKLOG', `${this.#waiting.length} records wait for the sink`)
    }
    const line = this.#chain.seal(event, {
      ts: this.#timestamp(clock.now()),
      mono_ns: String(Math.round(clock.monotonic() * 1e6)),
      sidecar: this.#describeSidecar(),
    })
    const bytes = Buffer.from(`${this.#lead}${line}\n`)
    this.#lead = ''
    return this.#put(bytes)
  }

  /** One frozen object until a reload: the text of it is then made once. */
  #describeSidecar(): AuditRecord['sidecar'] {
    const { instance, version, configSha } = this.#options
    const sha = configSha()
    if (this.#sidecar?.config_sha !== sha) {
      this.#sidecar = Object.freeze({ instance, version, config_sha: sha })
    }
    return this.#sidecar
  }

  /** Many records share a millisecond, and a date is dear to write. */
  #timestamp(nowMs: number): string {
    if (this.#lastMs !== nowMs) {
      this.#lastMs = nowMs
      this.#lastText = new Date(nowMs).toISOString()
    }
    return this.#lastText
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
    // Closing waits for the write in flight, and that may hang for as long as the sink does.
    const limit = delay(this.#options.writeTimeoutMs, undefined, { ref: false })
    await Promise.race([this.#sink.close().catch(() => {}), limit])
  }

  #put(bytes: Buffer): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiting: Waiting = { bytes, resolve, reject }
    this.#waiting.push(waiting)
    this.#waitingBytes += bytes.length
    if (this.#atTurnEnd) return promise
    if (!this.#writing && this.#sink.writeNow && !this.#isAway()) {
      this.#atTurnEnd = true
      setImmediate(() => this.#endTurn())
      return promise
    }
    this.#limit(waiting)
    if (!this.#writing) void this.#writeAll()
    return promise
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
    for (const waiting of this.#waiting) this.#limit(waiting)
    void this.#writeAll()
  }

  #limit(waiting: Waiting): void {
    const { writeTimeoutMs } = this.#options
    waiting.timer = setTimeout(() => {
      this.#healthy = false
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
    this.#waiting.splice(0, done)
    this.#offset = left
  }
}

function settle({ timer, resolve, reject }: Waiting, error?: AuditError): void {
  clearTimeout(timer)
  if (error) reject(error)
  else resolve()
}
