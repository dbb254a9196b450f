import type { Flow, FlowEnd } from './flow.ts'
import type { FlowKind } from './flows.ts'

/** What a drill measured: a public contract. Milliseconds are counted from the moment before the commit was sent. */
export interface DrillReport {
  readonly v: 1
  readonly started_at: string
  readonly revocation: {
    readonly rid: string
    readonly subject: string
    readonly recorded_at: string
    readonly epoch: string
    readonly confirmed_ms: number
  }
  readonly targets: readonly string[]
  readonly budget: Budget
  readonly verdict: 'within-budget' | 'over-budget'
  /** Why it is over budget. */
  readonly exceeded: readonly string[]
  readonly canary: readonly CanaryFlow[]
  readonly siblings: readonly SiblingFlow[]
}

export interface Budget {
  readonly refusal_ms: number
  readonly cut_ms: number
}

export interface CanaryFlow {
  readonly target: string
  readonly kind: FlowKind
  readonly end: FlowEnd['how'] | 'live'
  readonly status?: number
  readonly code?: string
  /** The refusal of the next request, or the end of the stream. */
  readonly ended_ms: number | null
  /** The last byte each way; null when none moved after the revocation was sent. */
  readonly last_byte_down_ms: number | null
  readonly last_byte_up_ms: number | null
  /** Polling only: an answer that came after a refusal. */
  readonly passed_after_refusal: boolean
}

export interface SiblingFlow {
  readonly target: string
  readonly kind: FlowKind
  readonly unharmed: boolean
}

export interface OpenedFlow {
  readonly target: string
  readonly kind: FlowKind
  readonly flow: Flow
}

export function canaryFlow({ target, kind, flow }: OpenedFlow, sentMs: number): CanaryFlow {
  const { end, lastDownMs, lastUpMs } = flow.facts()
  const after = (atMs: number | undefined): number | null =>
    atMs === undefined || atMs < sentMs ? null : round(atMs - sentMs)
  return {
    target,
    kind,
    end: end?.how ?? 'live',
    ...(end?.status !== undefined && { status: end.status }),
    ...(end?.code !== undefined && { code: end.code }),
    ended_ms: after(end?.atMs),
    last_byte_down_ms: after(lastDownMs),
    // A poll that is refused was sent, and went no further than the sidecar.
    last_byte_up_ms: kind === 'poll' ? null : after(lastUpMs),
    passed_after_refusal: kind === 'poll' && end !== undefined && (lastDownMs ?? 0) > end.atMs,
  }
}

/** Unharmed: it did not end, and bytes moved after the last canary had ended. */
export function siblingFlow({ target, kind, flow }: OpenedFlow, sinceMs: number): SiblingFlow {
  const { end, lastDownMs = 0, lastUpMs = 0 } = flow.facts()
  const lastMs = kind === 'upload' ? lastUpMs : lastDownMs
  return { target, kind, unharmed: end === undefined && lastMs > sinceMs }
}

/** Everything that is not as it must be, in words. */
export function exceededBy({
  budget,
  canary,
  siblings,
}: Pick<DrillReport, 'budget' | 'canary' | 'siblings'>): readonly string[] {
  return [
    ...canary.flatMap((flow) => canaryProblems(flow, budget).map((what) => named(flow, what))),
    ...siblings
      .filter(({ unharmed }) => !unharmed)
      .map((flow) => named(flow, 'the sibling was harmed')),
  ]
}

export function tableOf(report: DrillReport): readonly string[] {
  const { budget, canary, siblings, exceeded, revocation, verdict } = report
  const rows = canary.map((flow) => [
    flow.kind,
    [flow.end, flow.code].filter((word) => word !== undefined && word !== '').join(' '),
    ms(flow.ended_ms),
    ms(flow.last_byte_down_ms),
    ms(flow.last_byte_up_ms),
    flow.target,
  ])
  const unharmed = siblings.filter((flow) => flow.unharmed).length
  return [
    `revoked ${revocation.subject}, record ${revocation.rid}, confirmed by the store after ${revocation.confirmed_ms} ms`,
    ...aligned([['flow', 'end', 'ended', 'last down', 'last up', 'target'], ...rows]),
    `siblings ${unharmed}/${siblings.length} unharmed`,
    ...exceeded,
    `${verdict}: refusal ${budget.refusal_ms} ms, cut ${budget.cut_ms} ms`,
  ]
}

function canaryProblems(flow: CanaryFlow, budget: Budget): readonly string[] {
  const { kind, end, code, ended_ms: endedMs, last_byte_down_ms: downMs } = flow
  if (endedMs === null) return ['it was not cut']
  const isPoll = kind === 'poll'
  const [limitMs, what] = isPoll ? [budget.refusal_ms, 'refused'] : [budget.cut_ms, 'ended']
  return [
    ...(endedMs > limitMs ? [`${what} after ${endedMs} ms, budget ${limitMs} ms`] : []),
    ...(!isPoll && downMs !== null && downMs > limitMs && downMs > endedMs
      ? [`bytes came until ${downMs} ms, budget ${limitMs} ms`]
      : []),
    ...(end === 'clean' ? ['it ended as if it were complete'] : []),
    // An answer without a code is an error of the upstream, not a refusal.
    ...(end === 'refused' && (code ?? '') === '' ? ['it was not the sidecar that refused'] : []),
    ...(flow.passed_after_refusal ? ['a request passed after one was refused'] : []),
  ]
}

function named({ kind, target }: Pick<OpenedFlow, 'kind' | 'target'>, what: string): string {
  return `${kind} through ${target}: ${what}`
}

function ms(value: number | null): string {
  return value === null ? '-' : `${value} ms`
}

function aligned(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  )
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
