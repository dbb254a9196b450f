import type { Clock } from '../policy/types.ts'
import type { Envelope } from './chain.ts'
import type { AuditRecord } from './record.ts'

/** What each record says besides its event: when it is, and of which process. */
export function envelopesOf({
  instance,
  version,
  configSha,
  clock,
}: {
  readonly instance: string
  readonly version: string
  readonly configSha: () => string
  readonly clock: Clock
}): () => Envelope {
  let sidecar: AuditRecord['sidecar'] | undefined
  let lastMs = Number.NaN
  let lastText = ''
  // One frozen object until a reload: the text of it is then made once.
  const describeSidecar = (): AuditRecord['sidecar'] => {
    const sha = configSha()
    if (sidecar?.config_sha !== sha) {
      sidecar = Object.freeze({ instance, version, config_sha: sha })
    }
    return sidecar
  }
  // Many records share a millisecond, and a date is dear to write.
  const timestamp = (nowMs: number): string => {
    if (lastMs !== nowMs) {
      lastMs = nowMs
      lastText = new Date(nowMs).toISOString()
    }
    return lastText
  }
  return () => ({
    ts: timestamp(clock.now()),
    mono_ns: String(Math.round(clock.monotonic() * 1e6)),
    sidecar: describeSidecar(),
  })
}
