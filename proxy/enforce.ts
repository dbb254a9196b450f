import type { Lift } from '../policy/lift.ts'
import { codeOfRevocation } from '../policy/revocation-code.ts'
import type { Revocation } from '../policy/types.ts'
import type { Enforced } from '../revocation/presence-row.ts'
import type { Presence } from '../revocation/presence.ts'
import { putOnRecord } from './put-on-record.ts'
import type { Sidecar } from './sidecar.ts'

/** Records have come into force: everything that they cover ends now, and then it is put on record and acknowledged. */
export function enforce(
  sidecar: Sidecar,
  options: { readonly records: readonly Revocation[]; readonly presence: Presence | undefined },
): void {
  const heardMs = sidecar.clock.monotonic()
  const enforced = options.records.map((record) => {
    const ended = enforceOne(sidecar, record)
    const tookMs = Math.round((sidecar.clock.monotonic() - heardMs) * 1000) / 1000
    return { rid: record.rid, recordedAtMs: record.atMs, ...ended, tookMs }
  })
  options.presence?.enforced(enforced)
}

/** An operator's word has ended records here: what is allowed from now on is not in spite of them. */
export function recordLift(sidecar: Sidecar, { rid, lifts, by, reason, atMs }: Lift): void {
  sidecar.log.info({ rid, lifts, by }, 'lift in force')
  void putOnRecord(sidecar, {
    type: 'lift',
    rid,
    lifts,
    reason,
    by,
    ...(atMs <= maxDateMs && { signed_at: new Date(atMs).toISOString() }),
    revocation_epoch: sidecar.feed.view.epoch,
  })
}

/** ECMA-262: no date is later. What ends after it never does. */
const maxDateMs = 8.64e15

function enforceOne(sidecar: Sidecar, revocation: Revocation): Pick<Enforced, 'cut' | 'dropped'> {
  const { exchanges, credentials, metrics, feed, log } = sidecar
  const { rid, op, subject, reason, by, atMs, epoch, expiresAtMs } = revocation
  const cut = exchanges.cutCovered(revocation, codeOfRevocation(revocation))
  metrics.revocationApplied(op)
  const { dropped } = credentials.revokeCovered(subject)
  log.info({ rid, op, subject, cut, dropped }, 'revocation in force')
  void putOnRecord(sidecar, {
    type: 'revocation',
    rid,
    op,
    subject,
    reason,
    by,
    recorded_at: new Date(atMs).toISOString(),
    ...(expiresAtMs !== 0 &&
      expiresAtMs <= maxDateMs && { expires_at: new Date(expiresAtMs).toISOString() }),
    revocation_epoch: feed.view.epoch,
    ...(epoch !== undefined && { recorded_epoch: epoch }),
    exchanges_cut: cut,
  })
  return { cut, dropped }
}
