import type {
  ReadDecision,
  ReadGap,
  ReadLift,
  ReadOutcome,
  ReadRecord,
  ReadRevocation,
} from './read-record.ts'

export type Process = ProcessFacts & Part

/** The first record of a process. */
export function begin(
  record: ReadRecord,
  { file, before }: { readonly file: string; readonly before: Process | undefined },
): Process {
  return {
    file,
    instance: record.sidecar.instance,
    firstTs: record.ts,
    lastTs: record.ts,
    lastMs: monoMs(record),
    stopped: false,
    followed: false,
    afterCrash: before !== undefined && !before.stopped,
    isRestart: before !== undefined,
    open: new Map(),
    gaps: [],
    ...nothingYet(),
  }
}

/** As before the revocation came into force. */
export function nothingYet(): Part {
  return {
    inForce: undefined,
    lift: undefined,
    exchangesCut: 0,
    markMs: 0,
    silencesMs: [],
    cuts: [],
    bytesUp: 0,
    bytesDown: 0,
    outlived: [],
    acted: [],
    actedCount: 0,
    firstRefusal: undefined,
    refusals: new Map(),
    asked: new Map(),
    repeated: 0,
  }
}

export function monoMs({ mono_ns: monoNs }: Pick<ReadRecord, 'mono_ns'>): number {
  return Number(monoNs) / 1e6
}

/** One process of a sidecar, as its records tell of it. Times are those of its monotonic clock. */
interface ProcessFacts {
  readonly file: string
  readonly instance: string
  readonly firstTs: string
  lastTs: string
  lastMs: number
  /** Ended with a `stop` record. */
  stopped: boolean
  /** Another process goes on with the same chain: nothing was cut off at its end. */
  followed: boolean
  /** Began where another process of the same file had not stopped. */
  readonly afterCrash: boolean
  readonly isRestart: boolean
  /** Allowed, and no outcome yet. */
  readonly open: Map<string, ReadDecision>
  /** When records were in the spool only. */
  readonly gaps: ReadGap['detail'][]
}

/** What it has to do with the revocation. */
interface Part {
  /** `first` is by which it came into force, `record` is as the store has it: they differ for a bare message. */
  inForce:
    | {
        readonly first: ReadRevocation
        readonly record: ReadRevocation
        readonly atMs: number
      }
    | undefined
  /** An operator's lift names the revocation: from here on it refuses nothing. */
  lift: { readonly record: ReadLift; readonly atMs: number } | undefined
  /** A record that only Redis' channel named comes into force once more when the store has it. */
  exchangesCut: number
  /** Since the record came into force: when a heartbeat, or the record itself, was last seen. */
  markMs: number
  /** The longest silences between heartbeats after the record came into force. */
  readonly silencesMs: number[]
  readonly cuts: NonNullable<ReadOutcome['cut']>[]
  bytesUp: number
  bytesDown: number
  /** Covered, allowed before, and neither cut nor ended when the record came into force. */
  readonly outlived: ReadDecision[]
  readonly acted: ReadDecision[]
  actedCount: number
  firstRefusal: { readonly decisionId: string; readonly afterMs: number } | undefined
  /** Refused decisions after it by the retry count that the client gave; 0: a new decision of the agent. */
  readonly refusals: Map<number, number>
  /** Refused operations by when they were last asked for: what comes again soon may be a loop of the client. */
  readonly asked: Map<string, number>
  /** Refusals that no retry count tells apart, of an operation that was refused a moment before. */
  repeated: number
}
