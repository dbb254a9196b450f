import { readFileSync, statSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import * as v from 'valibot'
import type { Lift } from '../policy/lift.ts'
import type { Revocation } from '../policy/types.ts'
import type { FeedLog } from './feed-log.ts'
import { describeFault } from './redis-connection.ts'
import { parseRecord } from './revocation-record.ts'

export interface SnapshotContent {
  readonly records: readonly Revocation[]
  /** Compact JWS text, not verified. */
  readonly lifts: readonly string[]
}

interface FileOptions {
  readonly path: string
  readonly trustDomain: string
  readonly log: FeedLog
}

/**
 * Reads what a sidecar of this trust domain knew before. A file that is absent says nothing; one that is damaged, too
 * large or of another trust domain is logged and ignored, because Redis has it all.
 */
export function readSnapshotFile({ path, trustDomain, log }: FileOptions): SnapshotContent {
  try {
    if (statSync(path).size > maxBytes) throw new RangeError('the file is too large')
    const read = v.safeParse(fileSchema, JSON.parse(readFileSync(path, 'utf8')))
    if (!read.success) throw new TypeError('the file is not a snapshot')
    if (read.output.trustDomain !== trustDomain) {
      throw new TypeError('the file is of another trust domain')
    }
    const records = read.output.records.map((json) => {
      const record = parseRecord(json)
      if (!record) throw new TypeError('a record of the file cannot be read')
      return record
    })
    return { records, lifts: read.output.lifts }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return nothing
    // A JSON error quotes the file.
    const fault = error instanceof SyntaxError ? new SyntaxError('not JSON') : error
    log.error({ ...describeFault(fault), path }, 'Ignored the snapshot of the revocations')
    return nothing
  }
}

/** Writes the file at most once per second, whole or not at all, and once more on disposal. */
export class SnapshotFile implements AsyncDisposable {
  readonly #options: SnapshotFileOptions
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #failed = false

  constructor(options: SnapshotFileOptions) {
    this.#options = options
  }

  /** Something is to be written. */
  changed(): void {
    this.#timer ??= setTimeout(() => this.#write(), intervalMs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#timer) {
      clearTimeout(this.#timer)
      this.#write()
    }
    await this.#writing
  }

  #write(): void {
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#replace())
  }

  async #replace(): Promise<void> {
    const { path, trustDomain, log, read } = this.#options
    const temporary = `${path}.${process.pid}.tmp`
    try {
      const { records, lifts } = read({ maxRecords })
      const text = JSON.stringify({
        version: 1,
        trustDomain,
        records,
        lifts: lifts.map(({ compact }) => compact).slice(-maxLifts),
      })
      await rm(temporary, { force: true })
      const file = await open(temporary, 'wx', 0o600)
      try {
        await file.writeFile(text)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, path)
      this.#failed = false
    } catch (error) {
      if (!this.#failed) log.error({ ...describeFault(error), path }, 'Cannot write the snapshot')
      this.#failed = true
    }
  }
}

interface SnapshotFileOptions extends FileOptions {
  /** What is known, of the records the newest only. */
  readonly read: (limits: { readonly maxRecords: number }) => SnapshotSource
}

interface SnapshotSource {
  readonly records: readonly Revocation[]
  readonly lifts: readonly Lift[]
}

const intervalMs = 1_000
/** The newest: a record that is not in the file comes from Redis. */
const maxRecords = 50_000
const maxLifts = 5_000
const maxBytes = 256 * 1024 * 1024

const nothing: SnapshotContent = { records: [], lifts: [] }
const fileSchema = v.object({
  version: v.literal(1),
  trustDomain: v.string(),
  records: v.pipe(v.array(v.unknown()), v.maxLength(maxRecords)),
  lifts: v.pipe(v.array(v.string()), v.maxLength(maxLifts)),
})
