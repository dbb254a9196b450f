import { VerificationCache } from '../identity/verification-cache.ts'
import type { ApproverRegistry } from '../policy/approver.ts'
import { isDenial } from '../policy/denial.ts'
import { grantChain, verifyGrant } from '../policy/grant.ts'
import type { Clock, Denial, GrantChain } from '../policy/types.ts'

/** Verifies grants of one configuration, and remembers those that verified. */
export interface GrantVerifier {
  verify(compact: string): Promise<GrantChain | Denial>
}

interface GrantVerifierOptions {
  readonly approvers: ApproverRegistry
  readonly audience: string
  readonly clockSkewMs: number
  readonly maxTtlMs: number
  readonly purposes: readonly string[] | undefined
  readonly clock: Clock
}

/** The cache dies with the configuration: a changed approver registry never sees an old result (TG-8). */
export function createGrantVerifier(options: GrantVerifierOptions): GrantVerifier {
  const { clock, purposes, ...rest } = options
  const cache = new VerificationCache<GrantChain>()
  return {
    verify: (compact) =>
      cache.verify(compact, async () => {
        const grant = await verifyGrant(compact, {
          ...rest,
          ...(purposes && { purposes }),
          nowMs: clock.now(),
        })
        return isDenial(grant) ? grant : grantChain(grant)
      }),
  }
}
