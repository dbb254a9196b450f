import type { Config } from '../config/schema.ts'
import type { Log } from '../proxy/log.ts'
import type { Clock } from '../policy/types.ts'
import { createEmbeddedGrantStore } from '../revocation/embedded-grant-store.ts'
import { createEmbeddedRevocation } from '../revocation/embedded.ts'
import type { RevocationFeed } from '../revocation/feed.ts'
import type { GrantStore } from '../revocation/grant-store.ts'

/** Where a sidecar hears of revocations and finds grants. */
export interface ControlPlane extends AsyncDisposable {
  readonly feed: RevocationFeed
  readonly grants: GrantStore
}

/** Opens what the configuration names, and waits for nothing: the feed connects when it is started, and keeps trying. */
export async function openControlPlane(
  config: Config,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<ControlPlane> {
  const { revocation, trustDomain } = config
  if (revocation.source === 'embedded') {
    const { feed } = createEmbeddedRevocation({ clock })
    return {
      feed,
      grants: createEmbeddedGrantStore({ clock }),
      [Symbol.asyncDispose]: () => feed[Symbol.asyncDispose](),
    }
  }
  // The Redis client is memory and start time that an embedded source has no use for.
  const [{ createRedisFeed }, { createRedisGrantStore }] = await Promise.all([
    import('../revocation/redis-feed.ts'),
    import('../revocation/redis-grant-store.ts'),
  ])
  const { redis, syncInterval: syncIntervalMs } = revocation
  const feed = createRedisFeed({ redis, trustDomain, syncIntervalMs, clock, log })
  const grants = createRedisGrantStore({ redis, trustDomain, clock })
  return {
    feed,
    grants,
    async [Symbol.asyncDispose]() {
      await Promise.all([feed[Symbol.asyncDispose](), grants[Symbol.asyncDispose]()])
    },
  }
}
