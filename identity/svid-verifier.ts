import type { Config } from '../config/schema.ts'
import { isDenial } from '../policy/denial.ts'
import type { Agent, Clock, Denial } from '../policy/types.ts'
import { verifyJwtSvid, type VerifiedSvid } from './jwt-svid.ts'
import type { TrustBundles } from './trust-bundles.ts'
import { VerificationCache } from './verification-cache.ts'

/** Verifies JWT-SVIDs of one configuration, and remembers those that verified. */
export interface SvidVerifier {
  verify(compact: string): Promise<Agent | Denial>
}

export function createSvidVerifier(options: {
  readonly identity: Config['identity']
  /** What `aud` must have, byte for byte. */
  readonly audience: string
  readonly bundles: Pick<TrustBundles, 'find'>
  readonly clock: Clock
}): SvidVerifier {
  const { identity, audience, bundles, clock } = options
  const { clockSkew: clockSkewMs } = identity
  const cache = new VerificationCache<VerifiedSvid>({ isCurrent })

  return {
    async verify(compact) {
      const svid = await cache.verify(compact, () =>
        verifyJwtSvid(compact, {
          audience,
          bundles,
          clockSkewMs,
          maxSvidTtlMs: identity.maxSvidTtl,
          maxSvidBytes: identity.maxSvidBytes,
          maxAudiences: identity.maxAudiences,
          nowMs: clock.now(),
        }),
      )
      return isDenial(svid) ? svid : svid.agent
    },
  }

  /** A bundle that changed in any way, or went stale, ends every verification that it vouched for. */
  function isCurrent({ agent, notBeforeMs, generation }: VerifiedSvid): boolean {
    const nowMs = clock.now()
    if (agent.expiresAtMs + clockSkewMs <= nowMs || notBeforeMs > nowMs + clockSkewMs) return false
    const found = bundles.find(agent.trustDomain)
    return found.state === 'usable' && found.generation === generation
  }
}
