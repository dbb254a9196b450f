import { statSync } from 'node:fs'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import { RevocationSet } from '../policy/revocation-set.ts'
import type { Clock, Revocation, RevocationView } from '../policy/types.ts'
import { maxDenyListBytes, parseDenyList } from './deny-list.ts'
import type { FeedLog } from './feed-log.ts'
import type { DenyFileStatus, RevocationFeed } from './feed.ts'
import { provisional } from './revocation-record.ts'

interface DenyFileOptions {
  readonly path: string
  readonly clock: Clock
  readonly log: FeedLog
}

/**
 * The feed, and what a file on this machine denies: in force from `start()` on, with or without the store. Both are
 * asked, and neither takes anything out of the other: the file is a level that whoever may write it sets, while records
 * of the store leave by their expiry or by a signed lift alone.
 */
export function withDenyFile(feed: RevocationFeed, options: DenyFileOptions): RevocationFeed {
  const file = new DenyFile(options)
  const listeners: ((records: readonly Revocation[]) => void)[] = []
  let timer: NodeJS.Timeout | undefined
  const look = (): void => {
    const applied = file.look()
    if (applied.length === 0) return
    for (const listener of listeners) listener(applied)
  }
  const view: RevocationView = {
    get epoch() {
      return feed.view.epoch
    },
    ageMs: (monotonicMs) => feed.view.ageMs(monotonicMs),
    find(subjects) {
      const record = feed.view.find(subjects)
      // The file only revokes, so a pause alone is less strict.
      return record && record.op !== 'pause' ? record : (file.find(subjects) ?? record)
    },
  }
  return {
    view,
    start() {
      look()
      timer ??= setInterval(look, lookEveryMs)
      feed.start()
    },
    ready: feed.ready,
    onApplied(listener) {
      listeners.push(listener)
      feed.onApplied(listener)
    },
    // A file has no lifts: a line that is taken out was put in by the same hand.
    onLifted: (listener) => feed.onLifted(listener),
    status: () => ({ ...feed.status(), denyFile: file.status() }),
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await feed[Symbol.asyncDispose]()
    },
  }
}

const lookEveryMs = 250
/** A subject that is gone is let go when the file has been the same for so long: an editor may write it in pieces. */
const restMs = 1_000
const maxLoggedProblems = 20

/** What the file denies. A subject that is new in it counts at once; one that is gone, only when the file rests. */
class DenyFile {
  readonly #options: DenyFileOptions
  readonly #set = new RevocationSet()
  #identity: string | undefined
  #changedAtMs = -Infinity
  #leaving: readonly Revocation[] = []
  #problems = 0
  #complaint = ''

  constructor(options: DenyFileOptions) {
    this.#options = options
  }

  find(subjects: readonly string[]): Revocation | undefined {
    return this.#set.find(subjects)
  }

  status(): DenyFileStatus {
    return { subjects: this.#set.size, problems: this.#problems }
  }

  /** Reads the file when it is another one than before. Returns what has come into force. */
  look(): readonly Revocation[] {
    const { path, clock } = this.#options
    const nowMs = clock.monotonic()
    try {
      const identity = identify(path)
      if (identity !== this.#identity) {
        const text = readTextFile(path, { maxBytes: maxDenyListBytes })
        this.#identity = identity
        this.#changedAtMs = nowMs
        return this.#read(text)
      }
      if (nowMs - this.#changedAtMs >= restMs) this.#release()
    } catch (error) {
      this.#cannotRead(error)
    }
    return []
  }

  #read(text: string): readonly Revocation[] {
    const { path, clock, log } = this.#options
    const { entries, problems } = parseDenyList(text)
    this.#problems = problems.length
    this.#complaint = ''
    for (const { line, col, message } of problems.slice(0, maxLoggedProblems)) {
      log.error({ path, line }, `${path}:${line}:${col} ${message}: this line denies nothing`)
    }
    const nowMs = clock.now()
    const said = entries.map(({ subject, reason }) =>
      provisional(subject, { reason, by: 'file', nowMs }),
    )
    const kept = new Set(said.map(({ subject }) => subject))
    const gone = this.#set.records().filter(({ subject }) => !kept.has(subject))
    // What is gone may be what a bad line was to say.
    this.#leaving = problems.length === 0 ? gone : []
    return said.filter((record) => this.#set.add(record))
  }

  #release(): void {
    for (const record of this.#leaving) {
      this.#set.drop(record)
      const { rid, subject } = record
      this.#options.log.warn({ rid, subject }, 'no longer denied: its line is gone from the file')
    }
    this.#leaving = []
  }

  /** An absent file says nothing, so it takes nothing back: a mount that fails must not lift. */
  #cannotRead(error: unknown): void {
    this.#identity = undefined
    this.#leaving = []
    this.#problems = 1
    const why = error instanceof TextFileError ? error.message : 'The file cannot be read'
    if (why === this.#complaint) return
    this.#complaint = why
    const { path, log } = this.#options
    const denied = this.#set.size
    log.error({ path, denied }, `${path}: ${why}: what it denied before stays denied`)
  }
}

/** The change time is that of the inode: a mounted ConfigMap changes by a symlink swap, a copy may keep its age. */
function identify(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat) throw new TextFileError('The file does not exist')
  return `${stat.dev}:${stat.ino}:${stat.ctimeMs}:${stat.size}`
}
