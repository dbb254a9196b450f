import type { ChainReport } from './chain.ts'
import type { SignatureReport } from './checkpoint.ts'
import { isCovered } from './is-covered.ts'
import type {
  ReadDecision,
  ReadLift,
  ReadOutcome,
  ReadRecord,
  ReadRevocation,
} from './read-record.ts'
import { begin, monoMs, nothingYet, type Process } from './report-process.ts'
import { summarize, type RevocationReport } from './report-summary.ts'
import { isNamed, isOther, revocationNames, type RevocationNames } from './revocation-names.ts'

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

export interface FileFacts {
  readonly file: string
  readonly chain: ChainReport
  readonly unread: number
  readonly signatures: SignatureReport | undefined
}

/** `heartbeatMs` is how often the sidecars beat. */
export function accountOf(rid: string, { heartbeatMs }: { readonly heartbeatMs: number }): Account {
  const names = revocationNames(rid)
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
          if (record.type === 'revocation' && isOther(names, record.rid) && isHeard(process)) {
            process = { ...process, ...nothingYet() }
            processes[processes.length - 1] = process
          }
          take(record, { process, names, heartbeatMs })
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
    report: ({ acknowledged = [] } = {}) =>
      summarize(names.rid, { processes, files, acknowledged }),
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
  readonly names: RevocationNames
  readonly heartbeatMs: number
}

function take(record: ReadRecord, taking: Taking): void {
  const { process, names, heartbeatMs } = taking
  process.lastTs = record.ts
  process.lastMs = monoMs(record)
  // A checkpoint may follow: it signs the stop as well.
  process.stopped = record.type === 'stop' || (process.stopped && record.type === 'checkpoint')
  if (record.type === 'decision') takeDecision(record, taking)
  if (record.type === 'outcome') takeOutcome(record, taking)
  if (record.type === 'heartbeat') mark(process, heartbeatMs)
  if (record.type === 'gap') process.gaps.push(record.detail)
  if (record.type === 'lift' && record.lifts.includes(names.rid)) end(record, taking)
  if (record.type === 'revocation' && isNamed(names, record.rid)) enforce(record, process)
}

/** By a message alone so far: which record stands for it is not known yet. */
function isHeard({ inForce }: Process): boolean {
  return inForce !== undefined && inForce.record.recorded_epoch === undefined
}

/** Exchanges that it covers and that are open stay on the list until their outcome tells how they ended. */
function enforce(record: ReadRevocation, process: Process): void {
  // After its lift the same bare message is another revocation.
  if (process.lift) return
  process.exchangesCut += record.exchanges_cut
  if (process.inForce) {
    if (isHeard(process)) process.inForce = { ...process.inForce, record }
    return
  }
  process.inForce = { first: record, record, atMs: process.lastMs }
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
  return inForce.atMs + Date.parse(expiresAt) - Date.parse(inForce.first.ts)
}

function mark(process: Process, heartbeatMs: number): void {
  if (!process.inForce) return
  const silenceMs = Math.min(process.lastMs, endMs(process)) - process.markMs
  if (silenceMs > 2 * heartbeatMs) process.silencesMs.push(silenceMs)
  process.markMs = process.lastMs
}

function takeDecision(decision: ReadDecision, { process, names }: Taking): void {
  const { inForce } = process
  const isAllowed = decision.decision.effect === 'allow'
  if (!inForce) {
    if (isAllowed) process.open.set(decision.decision_id, decision)
    return
  }
  if (isOver(process, decision.ts)) return
  const { subject } = inForce.record
  if (decision.decision.rid !== names.rid && !isCovered(decision, subject)) return
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

function takeOutcome(outcome: ReadOutcome, { process, names }: Taking): void {
  const { inForce, lastMs } = process
  const decision = process.open.get(outcome.decision_id)
  process.open.delete(outcome.decision_id)
  if (outcome.cut && isCutBy(outcome.cut.rid, { process, names })) {
    process.cuts.push(outcome.cut)
    process.bytesUp += outcome.bytes_up
    process.bytesDown += outcome.bytes_down
    return
  }
  if (!inForce || !decision || outcome.cut) return
  if (lastMs - inForce.atMs > endGraceMs) process.outlived.push(decision)
}

/** Before the record and after its lift, what was cut under the id of a bare message is of another one. */
function isCutBy(
  rid: string | undefined,
  { process, names }: Pick<Taking, 'process' | 'names'>,
): boolean {
  if (rid === undefined) return false
  return (
    rid === names.rid || (rid === names.heard && process.inForce !== undefined && !process.lift)
  )
}

function endProcess(process: Process, heartbeatMs: number): void {
  mark(process, heartbeatMs)
  if (process.inForce) for (const decision of process.open.values()) process.outlived.push(decision)
  process.open.clear()
}
