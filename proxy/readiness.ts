import type { CheckResult } from './admin.ts'
import { denyFileCheck } from './deny-file-check.ts'
import type { Sidecar } from './sidecar.ts'
import { observedBy, observedOnly } from './observed-only.ts'
import type { Snapshot } from './snapshot.ts'

/** What must hold before traffic is sent here, each with a detail for operators. */
export function checkReady(
  { snapshot, feed, clock, audit }: Sidecar,
  {
    draining,
    refusedAtMs,
  }: { readonly draining: boolean; readonly refusedAtMs: number | undefined },
): readonly CheckResult[] {
  const { bundles, engine, config } = snapshot
  const ageMs = feed.view.ageMs(clock.monotonic())
  const { connected, epoch, records } = feed.status()
  const domains = bundles.status().map(({ trustDomain, keys }) => `${trustDomain} (${keys} keys)`)
  return [
    { name: 'serving', ok: !draining, detail: draining ? 'shutting down' : 'accepting tasks' },
    {
      name: 'config',
      ok: true,
      detail: `sha256 ${snapshot.configSha.slice(0, 12)}${refused(refusedAtMs)}`,
    },
    { name: 'policy', ok: engine.healthy, detail: policyDetail(snapshot, clock.now()) },
    { name: 'trust-bundles', ok: bundles.ready, detail: domains.join(', ') },
    {
      name: 'revocation',
      ok: ageMs <= config.revocation.staleAfterReads,
      detail: `${connected ? 'connected' : 'not connected'}, position ${epoch}, ${records} in force, age ${Math.round(ageMs)} ms`,
    },
    ...denyFileCheck(feed.status()),
    {
      name: 'audit',
      ok: audit.healthy,
      detail: `${audit.backlog} waiting, ${audit.spooled} in the spool`,
    },
  ]
}

/** The old one serves on, so it is no fault of readiness. */
function refused(atMs: number | undefined): string {
  return atMs === undefined ? '' : `, a newer one was refused at ${new Date(atMs).toISOString()}`
}

function policyDetail({ policies, engine, config }: Snapshot, nowMs: number): string {
  const { shadow } = policies
  const live = observedOnly(config).filter(({ untilMs }) => nowMs < untilMs)
  const observed = (['route', 'task'] as const).flatMap((kind) => {
    const count = live.filter((one) => one.kind === kind).length
    return count === 0 ? [] : [`${count} ${kind}s observed only (${observedBy[kind]})`]
  })
  return [
    `set ${engine.policySetSha.slice(0, 12)}`,
    ...(shadow ? [`shadow ${shadow.policySetSha.slice(0, 12)}`] : []),
    ...observed,
  ].join(', ')
}
