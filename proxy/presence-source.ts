import { maxLiveTasks } from '../revocation/presence-row.ts'
import type { PresenceSource } from '../revocation/presence.ts'
import type { Sidecar } from './sidecar.ts'
import { version } from './version.ts'

/** What operators see of this sidecar. */
export function presenceSource(
  sidecar: Sidecar,
  { instance, isReady }: { readonly instance: string; readonly isReady: () => boolean },
): PresenceSource {
  const { exchanges, feed, clock } = sidecar
  return {
    instance,
    liveTasks: () => exchanges.liveTasks(maxLiveTasks),
    report: () => {
      const { engine, config } = sidecar.snapshot
      const ageMs = feed.view.ageMs(clock.monotonic())
      return {
        version,
        policySha: engine.policySetSha,
        position: feed.view.epoch,
        exchanges: exchanges.count,
        ageMs: Number.isFinite(ageMs) ? Math.round(ageMs) : -1,
        ready: isReady(),
        staleAfterReadsMs: config.revocation.staleAfterReads,
        staleAfterStreamsMs: config.revocation.staleAfterStreams,
      }
    },
  }
}
