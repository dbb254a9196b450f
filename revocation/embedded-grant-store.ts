import type { Clock } from '../policy/types.ts'
import type { GrantStore, StoredGrant } from './grant-store.ts'

/** Grants in memory: at most 10,000, the oldest goes first; each until an hour after its expiry. */
export function createEmbeddedGrantStore(options: { readonly clock: Clock }): GrantStore {
  const { clock } = options
  const byTxn = new Map<string, StoredGrant>()
  const isKept = (grant: StoredGrant): boolean =>
    clock.now() < grant.expiresAtMs + keptAfterExpiryMs

  return {
    get: async (txn) => {
      const grant = byTxn.get(txn)
      if (!grant) return undefined
      if (isKept(grant)) return grant.compact
      byTxn.delete(txn)
      return undefined
    },
    put: async (txn, grant) => {
      byTxn.delete(txn)
      byTxn.set(txn, grant)
      if (byTxn.size <= maxGrants) return
      const [oldest] = byTxn.keys()
      if (oldest !== undefined) byTxn.delete(oldest)
    },
    list: async (limit) => [...byTxn.values()].filter(isKept).toReversed().slice(0, limit),
  }
}

const maxGrants = 10_000
/** Expired grants stay for a while, so that the agent is told `task-expired` and not that there is none. */
const keptAfterExpiryMs = 3_600_000
