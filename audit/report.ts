import type { ChainReport } from './chain.ts'
import type { SignatureReport } from './checkpoint.ts'
import { isCovered } from './is-covered.ts'
import type {
  ReadDecision,
  ReadGap,
  ReadLift,
  ReadOutcome,
  ReadRecord,
  ReadRevocation,
} from './read-record.ts'
import { summarize, type RevocationReport } from './report-summary.ts'

/** The records of one file, in their order, for the account of one revocation. */
export interface FileAccount {
  add(record: ReadRecord): void
  /** A line that the chain accepts and that is no record of this version. */
  unread(): void
  /** After the last record: what the chain and, when they were checked, the signatures say of the file. */
  end(chain: ChainReport, signatures?: SignatureReport): void
}

/** The account of one revocation over the files of several sidecars. Pure: it only sees records. */
export interface Account {
  file(name: string): FileAccount
  /** Undefined when no file knows the revocation. `acknowledged`: who told the store that it enforces it. */
  report(options?: { readonly acknowledged?: readonly string[] }): RevocationReport | undefined
}

/** One process of a sidecar, as its records tell of it. Times are those of its monotonic clock. */
export interface Process {
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
  inForce: { readonly record: ReadRevocation; readonly atMs: number } | undefined
  /** An operator's lift names the revocation: from here on it refuses nothing. */
  lift: { readonly record: ReadLift; readonly atMs: number } | undefined
  /** A record that only Redis' channel named comes into force once more when the store has it. */
  exchangesCut: number
  /** Since the record came into force: when a heartbeat, or the record itself, was last seen. */
  markMs: number
  /** The longest silences between heartbeats after the record came into force. */
  readonly silencesMs: number[]
  /** Allowed, and no outcome yet. */
  readonly open: Map<string, ReadDecision>
  readonly cuts: NonNullable<ReadOutcome['cut']>[]
  bytesUp: number
  bytesDown: number
  /** Covered, allowed before, and neither cut nor ended when the record came into force. */
  readonly outlived: ReadDecision[]
  /** When records were in the spool only. */
  readonly gaps: ReadGap['detail'][]
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

export interface FileFacts {
  readonly file: string
  readonly chain: ChainReport
  readonly unread: number
  readonly signatures: SignatureReport | undefined
}

/** `heartbeatMs` is how often the sidecars beat. */
export function accountOf(rid: string, { heartbeatMs }: { readonly heartbeatMs: number }): Account {
  const processes: Process[] = []
  const files: FileFacts[] = []
  return {
    file(name) {
      let process: Process | undefined
      let unread = 0
      return {
        add(record) {
          if (process?.instance !== record.sidecar.instance) {
            if (process) {
              endProcess(process, heartbeatMs)
              process.followed = true
            }
            process = begin(record, { file: name, before: process })
            processes.push(process)
          }
          take(record, { process, rid, heartbeatMs })
        },
        unread() {
          unread += 1
        },
        end(chain, signatures) {
          if (process) endProcess(process, heartbeatMs)
          files.push({ file: name, chain, unread, signatures })
        },
      }
    },
    report: ({ acknowledged = [] } = {}) => summarize(rid, { processes, files, acknowledged }),
  }
}

/** Records that are named one by one; the rest is counted. */
const maxNamed = 100
/** An exchange that ended as the record came into force may be put on file a moment later. */
const endGraceMs = 1_000
/** The same operation again within this time may be a client that repeats by itself. */
export const repeatMs = 2_000
const maxAsked = 10_000

interface Taking {
  readonly process: Process
  readonly rid: string
  readonly heartbeatMs: number
}

function begin(
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
    inForce: undefined,
    lift: undefined,
    exchangesCut: 0,
    markMs: 0,
    silencesMs: [],
    open: new Map(),
    cuts: [],
    bytesUp: 0,
    bytesDown: 0,
    outlived: [],
    gaps: [],
    acted: [],
    actedCount: 0,
    firstRefusal: undefined,
    refusals: new Map(),
    asked: new Map(),
    repeated: 0,
  }
}

function take(record: ReadRecord, taking: Taking): void {
  const { process, rid, heartbeatMs } = taking
  process.lastTs = record.ts
  process.lastMs = monoMs(record)
  // A checkpoint may follow: it signs the stop as well.
  process.stopped = record.type === 'stop' || (process.stopped && record.type === 'checkpoint')
  if (record.type === 'decision') takeDecision(record, taking)
  if (record.type === 'outcome') takeOutcome(record, taking)
  if (record.type === 'heartbeat') mark(process, heartbeatMs)
  if (record.type === 'gap') process.gaps.push(record.detail)
  if (record.type === 'lift' && record.lifts.includes(rid)) end(record, taking)
  if (record.type === 'revocation' && record.rid === rid) enforce(record, process)
}

/** Exchanges that it covers and that are open stay on the list until their outcome tells how they ended. */
function enforce(record: ReadRevocation, process: Process): void {
  process.exchangesCut += record.exchanges_cut
  if (process.inForce) return
  process.inForce = { record, atMs: process.lastMs }
  process.markMs = process.lastMs
  for (const [id, decision] of process.open) {
    if (!isCovered(decision, record.subject)) process.open.delete(id)
  }
}

function end(record: ReadLift, { process, heartbeatMs }: Taking): void {
  if (process.lift) return
  mark(process, heartbeatMs)
  process.lift = { record, atMs: process.lastMs }
}

/** What a process does after the end of the record is no part of the account. */
function isOver({ inForce, lift }: Process, ts: string): boolean {
  if (lift) return true
  const expiresAt = inForce?.record.expires_at
  return expiresAt !== undefined && Date.parse(ts) >= Date.parse(expiresAt)
}

/** Infinity while the record is in force. */
function endMs({ inForce, lift }: Process): number {
  if (lift) return lift.atMs
  const expiresAt = inForce?.record.expires_at
  if (!inForce || expiresAt === undefined) return Infinity
  return inForce.atMs + Date.parse(expiresAt) - Date.parse(inForce.record.ts)
}

function mark(process: Process, heartbeatMs: number): void {
  if (!process.inForce) return
  const silenceMs = Math.min(process.lastMs, endMs(process)) - process.markMs
  if (silenceMs > 2 * heartbeatMs) process.silencesMs.push(silenceMs)
  process.markMs = process.lastMs
}

function takeDecision(decision: ReadDecision, { process, rid }: Taking): void {
  const { inForce } = process
  const isAllowed = decision.decision.effect === 'allow'
  if (!inForce) {
    if (isAllowed) process.open.set(decision.decision_id, decision)
    return
  }
  if (isOver(process, decision.ts)) return
  const { subject } = inForce.record
  if (decision.decision.rid !== rid && !isCovered(decision, subject)) return
  if (isAllowed) {
    process.actedCount += 1
    if (process.acted.length < maxNamed) process.acted.push(decision)
    return
  }
  process.firstRefusal ??= {
    decisionId: decision.decision_id,
    afterMs: process.lastMs - inForce.atMs,
  }
  const retries = decision.request.retry_count ?? 0
  process.refusals.set(retries, (process.refusals.get(retries) ?? 0) + 1)
  if (isRepeated(decision, process) && retries === 0) process.repeated += 1
}

function isRepeated({ agent, task, upstream, request }: ReadDecision, process: Process): boolean {
  const { asked, lastMs } = process
  const { method, path, mcp, args_sha256: args } = request
  const operation = JSON.stringify([
    agent?.spiffe_id,
    task?.txn,
    upstream,
    method,
    path,
    mcp?.tool,
    args,
  ])
  const beforeMs = asked.get(operation)
  if (asked.size >= maxAsked) asked.clear()
  asked.set(operation, lastMs)
  return beforeMs !== undefined && lastMs - beforeMs <= repeatMs
}

function takeOutcome(outcome: ReadOutcome, { process, rid }: Taking): void {
  const { inForce, lastMs } = process
  const decision = process.open.get(outcome.decision_id)
  process.open.delete(outcome.decision_id)
  if (outcome.cut?.rid === rid) {
    process.cuts.push(outcome.cut)
    process.bytesUp += outcome.bytes_up
    process.bytesDown += outcome.bytes_down
    return
  }
  if (!inForce || !decision || outcome.cut) return
  if (lastMs - inForce.atMs > endGraceMs) process.outlived.push(decision)
}

function endProcess(process: Process, heartbeatMs: number): void {
  mark(process, heartbeatMs)
  if (process.inForce) for (const decision of process.open.values()) process.outlived.push(decision)
  process.open.clear()
}

function monoMs({ mono_ns: monoNs }: Pick<ReadRecord, 'mono_ns'>): number {
  return Number(monoNs) / 1e6
}
