import type { ReadDecision } from './read-record.ts'
import type { FileFacts, Process } from './report.ts'

/** The closed account of one revocation: a public contract, printed by `chaperone audit report --json`. */
export interface RevocationReport {
  readonly rid: string
  readonly op: string
  readonly subject: string
  readonly reason: string
  readonly by: string
  /** On the clock of the store. */
  readonly recorded_at: string
  readonly expires_at?: string
  /** `clean`: nothing acted and nothing is missing. `acted`: see `acted`. `open`: see `gaps`. */
  readonly verdict: 'clean' | 'acted' | 'open'
  readonly sidecars: readonly InForce[]
  readonly cut: readonly CutSummary[]
  readonly bytes_up: number
  readonly bytes_down: number
  readonly first_refusal:
    | (Place & { readonly decision_id: string; readonly after_ms: number })
    | null
  readonly attempts: {
    /** New decisions of the agent, all refused. */
    readonly decisions: number
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
  /** Recorded in the store -> in force here, over two clocks. */
  readonly after_ms: number
  readonly exchanges_cut: number
  /** The last record of this process. */
  readonly until: string
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

export interface Gap {
  readonly file: string
  readonly kind: GapKind
  readonly detail: string
  /** It leaves the account open; otherwise it is only named. */
  readonly open: boolean
}

export type GapKind =
  | 'chain'
  | 'torn'
  | 'unread'
  | 'restart'
  | 'not-in-force'
  | 'silence'
  | 'missing-outcome'
  | 'outlived'

interface Facts {
  readonly processes: readonly Process[]
  readonly files: readonly FileFacts[]
}

/** Undefined when no process had the revocation in force. */
export function summarize(rid: string, { processes, files }: Facts): RevocationReport | undefined {
  const enforcing = processes.filter((process) => process.inForce)
  const record = enforcing[0]?.inForce?.record
  if (!record) return undefined
  const gaps = [
    ...files.flatMap(fileGaps),
    ...processes.flatMap((process) => processGaps(process, record)),
  ]
  const acted = enforcing.flatMap((process) => process.acted.map((one) => actedOf(process, one)))
  const actedCount = sum(enforcing, ({ actedCount: count }) => count)
  const { op, subject, reason, by, recorded_at, expires_at } = record
  return {
    rid,
    op,
    subject,
    reason,
    by,
    recorded_at,
    ...(expires_at !== undefined && { expires_at }),
    verdict: actedCount > 0 ? 'acted' : gaps.some(({ open }) => open) ? 'open' : 'clean',
    sidecars: enforcing.flatMap(inForceOf),
    cut: cutSummaries(enforcing),
    bytes_up: sum(enforcing, ({ bytesUp }) => bytesUp),
    bytes_down: sum(enforcing, ({ bytesDown }) => bytesDown),
    first_refusal: firstRefusal(enforcing),
    attempts: attempts(enforcing),
    acted_count: actedCount,
    acted,
    gaps,
  }
}

function inForceOf({ file, instance, inForce, exchangesCut, lastTs }: Process): readonly InForce[] {
  if (!inForce) return []
  const { ts, recorded_at: recordedAt } = inForce.record
  const after_ms = Date.parse(ts) - Date.parse(recordedAt)
  return [{ file, instance, after_ms, exchanges_cut: exchangesCut, until: lastTs }]
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

function fileGaps({ file, chain, unread }: FileFacts): readonly Gap[] {
  const gap = (kind: GapKind, detail: string, open: boolean): Gap => ({ file, kind, detail, open })
  return [
    ...(chain.bad ? [gap('chain', `line ${chain.bad.line}: ${chain.bad.fault}`, true)] : []),
    ...chain.torn.map((line) => gap('torn', `line ${line}: a write ended early`, false)),
    ...(unread > 0 ? [gap('unread', `${unread} records are not of this version`, true)] : []),
  ]
}

function processGaps(
  process: Process,
  record: { readonly recorded_at: string; readonly expires_at?: string | undefined },
): readonly Gap[] {
  const { file, instance, inForce, exchangesCut, cuts } = process
  const gap = (kind: GapKind, detail: string, open: boolean): Gap => ({
    file,
    kind,
    detail: `sidecar ${instance}: ${detail}`,
    open,
  })
  const missing = inForce ? exchangesCut - cuts.length : 0
  return [
    ...(isRestartAfter(process, record) ? [gap('restart', restartText(process), false)] : []),
    ...(isUnenforced(process, record) ? [gap('not-in-force', unenforcedText(process), true)] : []),
    ...process.silencesMs.map((ms) =>
      gap('silence', `no heartbeat for ${Math.round(ms / 1000)} s`, true),
    ),
    ...(missing > 0
      ? [gap('missing-outcome', `${missing} cut exchanges have no outcome`, true)]
      : []),
    ...process.outlived.map(({ decision_id }) =>
      gap('outlived', `decision ${decision_id} was allowed before and not cut`, true),
    ),
  ]
}

function isRestartAfter(
  { isRestart, firstTs }: Process,
  { recorded_at }: { readonly recorded_at: string },
): boolean {
  return isRestart && Date.parse(firstTs) >= Date.parse(recorded_at)
}

function restartText({ firstTs, afterCrash }: Process): string {
  return `began at ${firstTs}${afterCrash ? ' and the one before had not stopped' : ''}`
}

/**
 * Without the record in force it must have ended before the record was made, or begun after it expired. A log that just
 * ends before it may have been cut off there.
 */
function isUnenforced(
  { inForce, stopped, followed, firstTs, lastTs }: Process,
  {
    recorded_at,
    expires_at,
  }: { readonly recorded_at: string; readonly expires_at?: string | undefined },
): boolean {
  if (inForce) return false
  if (expires_at !== undefined && Date.parse(firstTs) >= Date.parse(expires_at)) return false
  return !((stopped || followed) && Date.parse(lastTs) <= Date.parse(recorded_at))
}

function unenforcedText({ lastTs }: Process): string {
  return `the revocation is not on record, up to ${lastTs}`
}

function sum<T>(items: readonly T[], valueOf: (item: T) => number): number {
  return items.reduce((total, item) => total + valueOf(item), 0)
}

function roundTo3(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
