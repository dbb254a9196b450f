import { VerificationCache } from '../identity/verification-cache.ts'
import type { ApproverRegistry } from '../policy/approver.ts'
import { linkGrants } from '../policy/attenuate.ts'
import { isDenial } from '../policy/denial.ts'
import { grantChain, verifyGrant } from '../policy/grant.ts'
import type { Clock, Denial, Grant, GrantChain } from '../policy/types.ts'
import { findAncestors, type AncestorSources } from './find-ancestors.ts'

/** Verifies grants of one configuration, and remembers those that verified. */
export interface GrantVerifier {
  /** One grant by itself. That of a sub-agent is no whole chain yet: see `complete()`. */
  verify(compact: string): Promise<GrantChain | Denial>
  /** The chain that a verified grant hangs on, each ancestor verified as the grant was. */
  complete(alone: GrantChain, sources: AncestorSources): Promise<GrantChain | Denial>
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
  /** By the leaf alone, for as long as the cache holds it. */
  const chains = new WeakMap<GrantChain, GrantChain>()
  const verify = (compact: string): Promise<GrantChain | Denial> =>
    cache.verify(compact, async () => {
      const grant = await verifyGrant(compact, {
        ...rest,
        ...(purposes && { purposes }),
        nowMs: clock.now(),
      })
      return isDenial(grant) ? grant : grantChain(grant)
    })
  return {
    verify,
    async complete(alone, sources) {
      const above = await findAncestors(alone.leaf, { ...sources, verify })
      if (isDenial(above)) return above
      const known = chains.get(alone)
      // One object for many requests: answers of policies and facts for the audit are remembered by it.
      if (known && isChainOf(known, above)) return known
      const [root, ...others] = above
      const chain = root ? linkGrants([root, ...others, alone.leaf]) : alone
      if (!isDenial(chain)) chains.set(alone, chain)
      return chain
    },
  }
}

function isChainOf({ links }: GrantChain, above: readonly Grant[]): boolean {
  return links.length === above.length + 1 && above.every((grant, index) => links[index] === grant)
}
