import { formatProblem, loadConfig } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { deny, isDenial } from '../policy/denial.ts'
import type { Denial, GrantChain } from '../policy/types.ts'
import { createGrantVerifier } from '../proxy/grant-verifier.ts'
import { readApprovers } from '../proxy/snapshot.ts'
import { systemClock } from '../proxy/system-clock.ts'
import type { GrantStore } from '../revocation/grant-store.ts'
import { createRedisGrantStore } from '../revocation/redis-grant-store.ts'
import { askStore } from './store-options.ts'

/** The configuration, or undefined once its problems are on standard error. */
export function loadOrReport(path: string): Config | undefined {
  const loaded = loadConfig(path)
  if (loaded.ok) return loaded.config
  for (const problem of loaded.problems) process.stderr.write(`${formatProblem(problem)}\n`)
  return undefined
}

/** Asks the grant store of the configuration. Throws `TypeError` when there is none. */
export async function withGrantStore<T>(
  { revocation, trustDomain }: Config,
  ask: (store: Pick<GrantStore, 'get' | 'put' | 'list'>) => Promise<T>,
): Promise<T> {
  if (revocation.source !== 'redis') {
    throw new TypeError(
      'revocation.source is embedded: there is no store. Use --print or --out, and send it as Task-Grant or as the grant file',
    )
  }
  const { redis } = revocation
  await using store = createRedisGrantStore({ redis, trustDomain, clock: systemClock })
  return await askStore(redis, () => ask(store))
}

/** What a sidecar of this configuration would make of the grant; ancestors come from the store. */
export async function verifyAsSidecar(
  compact: string,
  config: Config,
): Promise<GrantChain | Denial> {
  const grants = createGrantVerifier({
    approvers: readApprovers(config),
    audience: audienceOf(config),
    clockSkewMs: config.identity.clockSkew,
    maxTtlMs: config.grants.maxTtl,
    purposes: config.grants.purposes,
    clock: systemClock,
  })
  const alone = await grants.verify(compact)
  if (isDenial(alone)) return alone
  const chain = await grants.complete(alone, {
    presented: [],
    stored: async (txn) =>
      (await withGrantStore(config, (store) => store.get(txn))) ??
      deny('task-grant-invalid', 'no grant of this task is stored'),
  })
  if (isDenial(chain) || systemClock.now() < chain.expiresAtMs) return chain
  return deny('task-expired', 'a grant of the task has expired')
}

/** What `aud` of a grant must be. */
export function audienceOf({ audience, trustDomain }: Config): string {
  return audience ?? `spiffe://${trustDomain}/chaperone`
}
