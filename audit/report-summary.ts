import type { ReadDecision } from './read-record.ts'
import type { Process } from './report-process.ts'
import type { FileFacts } from './report.ts'
import { gapsOf, type Gap } from './report-gaps.ts'

/** The closed account of one revocation: a public contract, printed by `chaperone audit report --json`. */
export interface RevocationReport {
  readonly rid: string
  readonly op: string
  readonly subject: string
  readonly reason: string
  readonly by: string
  /** On the clock of the store. */
  readonly recorded_at: string
  /** Its place in the revocation log; absent: only bare messages told of it. */
  readonly recorded_epoch?: number
  readonly expires_at?: string
  /** Where an operator's lift ended it, in the order of time. */
  readonly lifted: readonly Lifted[]
  /** `clean`: nothing acted and nothing is missing. `acted`: see `acted`. `open`: see `gaps`. */
  readonly verdict: 'clean' | 'acted' | 'open'
  readonly sidecars: readonly InForce[]
  readonly cut: readonly CutSummary[]
  readonly bytes_up: number
  readonly bytes_down: number
  /** The latest body byte that a cut exchange handed on, milliseconds from the record in force; negative: before it. */
  readonly last_byte: { readonly up_ms: number | null; readonly down_ms: number | null }
  readonly first_refusal:
    | (Place & { readonly decision_id: string; readonly after_ms: number })
    | null
  readonly attempts: {
    /** New decisions of the agent as far as the client says, all refused. */
    readonly decisions: number
    /** How many of those were the same operation again within two seconds: perhaps a client that repeats by itself. */
    readonly repeated: number
    /** What a client library says that it repeated by itself. */
    readonly automatic_retries: number
    readonly by_retry_count: Readonly<Record<string, number>>
  }
  readonly acted_count: number
  readonly acted: readonly Acted[]
  readonly gaps: readonly Gap[]
}

interface Place {
  readonly file: string
  readonly instance: string
}

export interface InForce extends Place {
  readonly at: string
  /** Position of the revocation log in this sidecar then. */
  readonly epoch: string
  /** Recorded in the store -> in force here, over two clocks; negative where a bare message was heard before. */
  readonly after_ms: number
  readonly exchanges_cut: number
  /** The last record of this process. */
  readonly until: string
}

export interface Lifted extends Place {
  readonly at: string
  /** Id of the lift. */
  readonly rid: string
  /** The operator that signed it. */
  readonly by: string
  readonly reason: string
  readonly signed_at: string | null
}

export interface CutSummary {
  readonly how: string
  readonly count: number
  readonly after_ms: { readonly p50: number; readonly max: number }
}

export interface Acted extends Place {
  readonly decision_id: string
  readonly seq: number
  readonly ts: string
  readonly agent: string | null
  readonly txn: string | null
  readonly upstream: string | null
  readonly method: string
  readonly path: string
}

interface Facts {
  readonly processes: readonly Process[]
  readonly files: readonly FileFacts[]
  readonly acknowledged: readonly string[]
}

/** Undefined when no process had the revocation in force. */
export function summarize(rid: string, facts: Facts): RevocationReport | undefined {
  const enforcing = facts.processes.filter((process) => process.inForce)
  const known = enforcing.flatMap(({ inForce }) => inForce?.record ?? [])
  const record = known.find(({ recorded_epoch: epoch }) => epoch !== undefined) ?? known[0]
  if (!record) return undefined
  const gaps = gapsOf(record, facts)
  const acted = enforcing.flatMap((process) => process.acted.map((one) => actedOf(process, one)))
  const actedCount = sum(enforcing, ({ actedCount: count }) => count)
  const { op, subject, reason, by, recorded_at, recorded_epoch, expires_at } = record
  return {
    rid,
    op,
    subject,
    reason,
    by,
    recorded_at,
    ...(recorded_epoch !== undefined && { recorded_epoch }),
    ...(expires_at !== undefined && { expires_at }),
    lifted: facts.processes
      .flatMap(liftedOf)
      .toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at)),
    verdict: actedCount > 0 ? 'acted' : gaps.some(({ open }) => open) ? 'open' : 'clean',
    sidecars: enforcing.flatMap(inForceOf),
    cut: cutSummaries(enforcing),
    bytes_up: sum(enforcing, ({ bytesUp }) => bytesUp),
    bytes_down: sum(enforcing, ({ bytesDown }) => bytesDown),
    last_byte: lastByte(enforcing),
    first_refusal: firstRefusal(enforcing),
    attempts: attempts(enforcing),
    acted_count: actedCount,
    acted,
    gaps,
  }
}

function inForceOf({ file, instance, inForce, exchangesCut, lastTs }: Process): readonly InForce[] {
  if (!inForce) return []
  const { ts: at, revocation_epoch: epoch } = inForce.first
  const after_ms = Date.parse(at) - Date.parse(inForce.record.recorded_at)
  return [{ file, instance, at, epoch, after_ms, exchanges_cut: exchangesCut, until: lastTs }]
}

function liftedOf({ file, instance, lift }: Process): readonly Lifted[] {
  if (!lift) return []
  const { ts: at, rid, by, reason, signed_at = null } = lift.record
  return [{ file, instance, at, rid, by, reason, signed_at }]
}

function lastByte(processes: readonly Process[]): RevocationReport['last_byte'] {
  const cuts = processes.flatMap((process) => process.cuts)
  return {
    up_ms: latest(cuts.map(({ last_up_ms: ms }) => ms)),
    down_ms: latest(cuts.map(({ last_down_ms: ms }) => ms)),
  }
}

function latest(times: readonly (number | undefined)[]): number | null {
  const known = times.filter((time) => time !== undefined)
  return known.length === 0 ? null : known.reduce((a, b) => Math.max(a, b))
}

function cutSummaries(processes: readonly Process[]): readonly CutSummary[] {
  const cuts = Map.groupBy(
    processes.flatMap((process) => process.cuts),
    ({ how }) => how,
  )
  return [...cuts].map(([how, those]) => {
    const times = those.map(({ after_ms }) => after_ms).toSorted((a, b) => a - b)
    const p50 = times[Math.ceil(times.length / 2) - 1] ?? 0
    return { how, count: times.length, after_ms: { p50, max: times.at(-1) ?? 0 } }
  })
}

function firstRefusal(processes: readonly Process[]): RevocationReport['first_refusal'] {
  const refusals = processes.flatMap(({ file, instance, firstRefusal: first }) =>
    first
      ? [{ file, instance, decision_id: first.decisionId, after_ms: roundTo3(first.afterMs) }]
      : [],
  )
  return refusals.toSorted((a, b) => a.after_ms - b.after_ms)[0] ?? null
}

function attempts(processes: readonly Process[]): RevocationReport['attempts'] {
  const counts = new Map<number, number>()
  for (const { refusals } of processes) {
    for (const [retry, count] of refusals) counts.set(retry, (counts.get(retry) ?? 0) + count)
  }
  const ordered = [...counts].toSorted(([a], [b]) => a - b)
  return {
    decisions: counts.get(0) ?? 0,
    repeated: sum(processes, ({ repeated }) => repeated),
    automatic_retries: sum(ordered, ([retry, count]) => (retry > 0 ? count : 0)),
    by_retry_count: Object.fromEntries(ordered),
  }
}

function actedOf({ file, instance }: Process, decision: ReadDecision): Acted {
  const { decision_id, seq, ts, agent, task, upstream, request } = decision
  return {
    file,
    instance,
    decision_id,
    seq,
    ts,
    agent: agent?.spiffe_id ?? null,
    txn: task?.txn ?? null,
    upstream,
    method: request.method,
    path: request.path,
  }
}

function sum<T>(items: readonly T[], valueOf: (item: T) => number): number {
  return items.reduce((total, item) => total + valueOf(item), 0)
}

function roundTo3(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
