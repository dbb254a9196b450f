import type { Durability } from '../revocation/durability.ts'
import type { Enforcement, Unconfirmed } from '../revocation/enforcement.ts'
import type { Committed, RevocationDraft } from '../revocation/feed.ts'
import { durableJson } from './durability-report.ts'
import { printable } from './printable.ts'

interface Recorded {
  readonly draft: RevocationDraft
  readonly committed: Committed
}

export function recordedLine({ draft, committed }: Recorded): string {
  const { op, subject, rid } = draft
  return `recorded  ${op} ${subject} at ${instant(committed.atMs)}, record ${rid}, position ${committed.epoch}`
}

/** One JSON object on one line. */
export function recordedJson({
  draft,
  committed,
  durability,
  enforcement,
}: Recorded & {
  readonly durability: Durability
  readonly enforcement: Enforcement | undefined
}): readonly string[] {
  const { rid, op, subject } = draft
  const recorded = {
    rid,
    op,
    subject,
    epoch: committed.epoch,
    recorded_at: instant(committed.atMs),
    durable: durableJson(durability),
  }
  if (!enforcement) return [JSON.stringify(recorded)]
  const { confirmed, unconfirmed } = enforcement
  const enforced = {
    sidecars: confirmed.length + unconfirmed.length,
    confirmed: confirmed.map(({ instance, host, afterMs, cut, dropped, tookMs }) => ({
      instance,
      host,
      after_ms: round(afterMs),
      ...(cut !== undefined && { cut }),
      ...(dropped !== undefined && { credentials_dropped: dropped }),
      ...(tookMs !== undefined && { heard_to_cut_ms: tookMs }),
    })),
    unconfirmed: unconfirmed.map(({ instance, host, seenMs, closedByMs }) => ({
      instance,
      host,
      seen_at: instant(seenMs),
      ...(closedByMs && {
        refuses_by: instant(closedByMs.reads),
        streams_end_by: instant(closedByMs.streams),
      }),
    })),
    streams_cut: sumOf(enforcement, 'cut'),
    credentials_dropped: sumOf(enforcement, 'dropped'),
  }
  return [JSON.stringify({ ...recorded, enforced, everywhere: isConfirmed(enforcement) })]
}

/** What an operator reads after the record: proof, or who is missing and when that one closes by itself. */
export function enforcementLines(enforcement: Enforcement, atMs: number): readonly string[] {
  const { confirmed, unconfirmed } = enforcement
  const all = confirmed.length + unconfirmed.length
  if (all === 0) {
    return [
      'enforced  by nobody: no sidecar is registered in this store. Are --trust-domain and --prefix those of the sidecars?',
    ]
  }
  const delays = confirmed.map(({ afterMs }) => afterMs).toSorted((a, b) => a - b)
  const p50 = delays[Math.floor((delays.length - 1) / 2)]
  const max = delays.at(-1)
  const within =
    p50 === undefined || max === undefined ? '' : ` within ${round(max)} ms (p50 ${round(p50)} ms)`
  return [
    `enforced  ${confirmed.length}/${all} sidecars${within}`,
    `streams   ${sumOf(enforcement, 'cut')} cut`,
    `dropped   ${sumOf(enforcement, 'dropped')} credentials`,
    ...unconfirmed.map((sidecar) => silentLine(sidecar, atMs)),
  ]
}

/** A store without sidecars has confirmed nothing. */
export function isConfirmed({ confirmed, unconfirmed }: Enforcement): boolean {
  return confirmed.length > 0 && unconfirmed.length === 0
}

function silentLine({ instance, host, seenMs, closedByMs }: Unconfirmed, atMs: number): string {
  const who = `not confirmed  ${printable(instance)} on ${printable(host)}, last seen ${instant(seenMs)}`
  if (!closedByMs) return `${who}: what it registered cannot be read`
  const seconds = (ms: number): string => `${(ms - atMs) / 1000} s after the record`
  return `${who}: unless it hears of the record it refuses everything by itself from ${instant(closedByMs.reads)} at the latest (${seconds(closedByMs.reads)}), and ends its streams by ${instant(closedByMs.streams)}`
}

function sumOf({ confirmed }: Enforcement, what: 'cut' | 'dropped'): number {
  return confirmed.reduce((sum, one) => sum + (one[what] ?? 0), 0)
}

function round(ms: number): number {
  return Math.round(ms)
}

function instant(ms: number): string {
  return new Date(ms).toISOString()
}
