import type { Fleet, JudgedSidecar } from '../revocation/fleet.ts'
import { printable } from './printable.ts'

const columns = [
  'sidecar',
  'host',
  'version',
  'state',
  'position',
  'age',
  'live',
  'cut',
  'policy',
] as const

/** One line per sidecar under a head, for a terminal. */
export function fleetTable(sidecars: readonly JudgedSidecar[]): readonly string[] {
  const rows = [columns, ...sidecars.map(toCells)]
  const widths = columns.map((_, at) => Math.max(...rows.map((cells) => (cells[at] ?? '').length)))
  return rows.map((cells) =>
    cells
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}

/** The same for programs: a public contract. */
export function sidecarsJson({ sidecars, head }: Fleet): readonly object[] {
  return sidecars.map(({ instance, seenMs, state, ageMs, row }) => ({
    instance,
    state,
    seen_at: instant(seenMs),
    lag: lagOf(head, row?.position),
    ...(ageMs !== undefined && { age_ms: ageMs }),
    ...(row && {
      host: row.host,
      version: row.version,
      policy_sha: row.policySha,
      position: row.position,
      exchanges: row.exchanges,
      cut: row.cut,
      ready: row.ready,
      ...(row.enforcedAtMs > 0 && { enforced_at: instant(row.enforcedAtMs) }),
    }),
  }))
}

/** How many records a position lacks; undefined before its first sync. */
export function lagOf(head: string, position: string | undefined): number | undefined {
  const n = Number.parseInt(position ?? '', 10)
  return Number.isNaN(n) ? undefined : Math.max(0, Number.parseInt(head, 10) - n)
}

/** The link is told apart by its first digits. */
export function shortPosition(position: string): string {
  return position.replace(/(:.{8}).*/, '$1')
}

export function instant(ms: number): string {
  return new Date(ms).toISOString()
}

function toCells({ instance, state, ageMs, row }: JudgedSidecar): readonly string[] {
  return [
    printable(instance.slice(0, 8)),
    printable(row?.host ?? '?'),
    printable(row?.version ?? '?'),
    state,
    shortPosition(row?.position ?? '?'),
    ageMs === undefined ? '-' : `${ageMs} ms`,
    String(row?.exchanges ?? '?'),
    String(row?.cut ?? '?'),
    printable((row?.policySha ?? '?').slice(0, 12)),
  ]
}
