import { setTimeout as delay } from 'node:timers/promises'
import type { Committed, RevocationDraft } from '../../revocation/feed.ts'
import { flowKinds, openFlow, type FlowKind } from './flows.ts'
import {
  canaryFlow,
  exceededBy,
  siblingFlow,
  type Budget,
  type DrillReport,
  type OpenedFlow,
} from './report.ts'

export interface Drill {
  /** URLs of routes of sidecars. */
  readonly targets: readonly string[]
  /** What stands after the target's URL for each kind of flow. */
  readonly paths: Readonly<Record<FlowKind, string>>
  /** How requests of each task name themselves. */
  readonly canary: Readonly<Record<string, string>>
  readonly sibling: Readonly<Record<string, string>>
  readonly draft: RevocationDraft
  readonly commit: (draft: RevocationDraft) => Promise<Committed>
  readonly budget: Budget
}

/** Opens every flow twice, revokes the one half, and measures. Rejects when a flow does not come to life. */
export async function runDrill(drill: Drill): Promise<DrillReport> {
  const startedAt = new Date().toISOString()
  const open = (headers: Drill['canary']): readonly OpenedFlow[] =>
    drill.targets.flatMap((target) =>
      flowKinds.map((kind) => {
        const url = `${target.replace(/\/$/, '')}${drill.paths[kind]}`
        return { target, kind, flow: openFlow(kind, { url, headers }) }
      }),
    )
  const canaries = open(drill.canary)
  const siblings = open(drill.sibling)
  try {
    await untilLive([...canaries, ...siblings])
    const sentMs = performance.now()
    const committed = await drill.commit(drill.draft)
    const confirmedMs = performance.now() - sentMs
    await within(cutLimitMs, Promise.all(canaries.map(({ flow }) => flow.ended)))
    const cutMs = performance.now()
    // Long enough for a byte that still comes; then until the siblings have shown that they live.
    await delay(watchMs)
    await untilMoved(siblings, cutMs)
    const canary = canaries.map((opened) => canaryFlow(opened, sentMs))
    const sibling = siblings.map((opened) => siblingFlow(opened, cutMs))
    const measured = { budget: drill.budget, canary, siblings: sibling }
    const exceeded = exceededBy(measured)
    return {
      v: 1,
      started_at: startedAt,
      revocation: {
        rid: drill.draft.rid,
        subject: drill.draft.subject,
        recorded_at: new Date(committed.atMs).toISOString(),
        epoch: committed.epoch,
        confirmed_ms: Math.round(confirmedMs * 10) / 10,
      },
      targets: drill.targets,
      verdict: exceeded.length === 0 ? 'within-budget' : 'over-budget',
      exceeded,
      ...measured,
    }
  } finally {
    for (const { flow } of [...canaries, ...siblings]) flow.close()
  }
}

const liveLimitMs = 10_000
const cutLimitMs = 10_000
const watchMs = 500
const pollMs = 20

async function untilMoved(siblings: readonly OpenedFlow[], sinceMs: number): Promise<void> {
  const deadline = sinceMs + liveLimitMs
  const isKnown = (opened: OpenedFlow): boolean =>
    opened.flow.facts().end !== undefined || siblingFlow(opened, sinceMs).unharmed
  while (!siblings.every(isKnown) && performance.now() < deadline) await delay(pollMs)
}

async function untilLive(opened: readonly OpenedFlow[]): Promise<void> {
  const all = opened.map(async ({ kind, target, flow }) => {
    const name = `${kind} through ${target}`
    const live = flow.live.then(
      () => true,
      (cause: unknown) => {
        const why = cause instanceof Error ? cause.message : 'unknown error'
        throw new Error(`${name} did not come to life: ${why}`, { cause })
      },
    )
    if (!(await within(liveLimitMs, live))) throw new Error(`${name} did not come to life`)
  })
  await Promise.all(all)
}

async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  const timer = new AbortController()
  try {
    const limit = delay(ms, undefined, { signal: timer.signal, ref: false })
    limit.catch(() => undefined)
    return await Promise.race([work, limit])
  } finally {
    timer.abort()
  }
}
