import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../policy/types.ts'
import { parsePosition } from './link-hash.ts'
import type { Population, PresenceReader, RegisteredSidecar } from './presence-reader.ts'

/** How a registered sidecar stands to the store. */
export type SidecarState =
  /** At the head, fresh and ready. */
  | 'ok'
  /** Follows the store, and takes no traffic: it starts, drains, or a readiness check of it fails. */
  | 'not-ready'
  /** It does not have every record of the store. */
  | 'behind'
  /** Its position is of another history: a failover or a restore came in between. */
  | 'forked'
  /** Its view is past its bound: it refuses. */
  | 'stale'
  /** It has missed three beats. */
  | 'silent'
  /** What it registered cannot be read. */
  | 'unreadable'

export interface Fleet extends Omit<Population, 'sidecars'> {
  readonly sidecars: readonly JudgedSidecar[]
}

export interface JudgedSidecar extends RegisteredSidecar {
  readonly state: SidecarState
  /** Age of its view by now, if it has none fresher than its row says; undefined when it has no view. */
  readonly ageMs: number | undefined
}

/**
 * Every sidecar and how it stands to the store. One that is merely a beat behind a fresh record gets `graceMs` to catch
 * up. Rejects with `RevocationStoreError` when the store does not answer.
 */
export async function readFleet(
  reader: PresenceReader,
  {
    clock,
    graceMs,
    liveTasks = false,
  }: { readonly clock: Clock; readonly graceMs: number; readonly liveTasks?: boolean },
): Promise<Fleet> {
  const deadline = clock.monotonic() + graceMs
  for (;;) {
    const population = await reader.read({ liveTasks })
    const sidecars: JudgedSidecar[] = []
    for (const sidecar of population.sidecars) {
      sidecars.push(await judge(sidecar, { reader, population }))
    }
    const settled = sidecars.every(({ state }) => state !== 'behind' && state !== 'not-ready')
    if (settled || clock.monotonic() >= deadline) return { ...population, sidecars }
    await delay(pollMs)
  }
}

/** True when each sidecar follows the store up to its head. */
export function isUpToDate({ sidecars }: Fleet): boolean {
  return sidecars.every(({ state }) => state === 'ok' || state === 'not-ready')
}

const pollMs = 100

async function judge(
  sidecar: RegisteredSidecar,
  context: { readonly reader: PresenceReader; readonly population: Population },
): Promise<JudgedSidecar> {
  const { row, seenMs } = sidecar
  const sinceMs = context.population.nowMs - seenMs
  const ageMs = row === undefined || row.ageMs < 0 ? undefined : row.ageMs + sinceMs
  return { ...sidecar, ageMs, state: await stateOf(sidecar, context) }
}

async function stateOf(
  { row, silent }: RegisteredSidecar,
  { reader, population }: { readonly reader: PresenceReader; readonly population: Population },
): Promise<SidecarState> {
  if (silent) return 'silent'
  if (!row) return 'unreadable'
  const at = parsePosition(row.position)
  // Not one complete sync yet: it refuses, and has nothing to lag behind with.
  if (!at) return 'behind'
  if (row.ageMs < 0 || row.ageMs > row.staleAfterReadsMs) return 'stale'
  const head = parsePosition(population.head)
  if (!head || at.n > head.n) return 'forked'
  const link = at.n === head.n ? head.h : await reader.linkAt(at.n)
  // A place that was trimmed away, or the one before the first entry, has no link to compare.
  if (link !== undefined && link !== at.h) return 'forked'
  if (at.n < head.n) return 'behind'
  return row.ready ? 'ok' : 'not-ready'
}
