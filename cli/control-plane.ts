import type { Config } from '../config/schema.ts'
import { liftVerifier } from '../proxy/lift-verifier.ts'
import type { Log } from '../proxy/log.ts'
import type { Clock } from '../policy/types.ts'
import { createEmbeddedGrantStore } from '../revocation/embedded-grant-store.ts'
import { createEmbeddedRevocation } from '../revocation/embedded.ts'
import { withDenyFile } from '../revocation/deny-file.ts'
import type { RevocationFeed } from '../revocation/feed.ts'
import type { GrantStore } from '../revocation/grant-store.ts'
import type { Presence } from '../revocation/presence.ts'
import type { RedisCheckpoints } from '../revocation/redis-checkpoints.ts'

/** Where a sidecar hears of revocations and finds grants. */
export interface ControlPlane extends AsyncDisposable {
  readonly feed: RevocationFeed
  readonly grants: GrantStore
  /** How operators see the sidecar. Absent when it has its revocations to itself. */
  readonly presence?: Presence
  /** Absent when no checkpoints are configured, or nobody else could see them. */
  readonly checkpoints?: RedisCheckpoints
}

/** Opens what the configuration names, and waits for nothing: the feed connects when it is started, and keeps trying. */
export async function openControlPlane(
  config: Config,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<ControlPlane> {
  const { revocation, trustDomain } = config
  const verifyLift = liftVerifier(config)
  const withFile = (feed: RevocationFeed): RevocationFeed => {
    const { denyFile: path } = revocation
    return path === undefined ? feed : withDenyFile(feed, { path, clock, log })
  }
  if (revocation.source === 'embedded') {
    const feed = withFile(createEmbeddedRevocation({ clock, verifyLift }).feed)
    return {
      feed,
      grants: createEmbeddedGrantStore({ clock }),
      [Symbol.asyncDispose]: () => feed[Symbol.asyncDispose](),
    }
  }
  // The Redis client is memory and start time that an embedded source has no use for.
  const [
    { createRedisFeed },
    { createRedisGrantStore },
    { createPresence },
    { createRedisCheckpoints },
  ] = await Promise.all([
    import('../revocation/redis-feed.ts'),
    import('../revocation/redis-grant-store.ts'),
    import('../revocation/presence.ts'),
    import('../revocation/redis-checkpoints.ts'),
  ])
  const { redis, syncInterval: syncIntervalMs, snapshotFile } = revocation
  const feed = withFile(
    createRedisFeed({
      redis,
      trustDomain,
      syncIntervalMs,
      clock,
      log,
      verifyLift,
      ...(snapshotFile !== undefined && { snapshotFile }),
    }),
  )
  const grants = createRedisGrantStore({ redis, trustDomain, clock })
  const presence = createPresence({ redis, trustDomain, clock, log })
  const checkpoints = config.audit.checkpoint && createRedisCheckpoints({ redis, trustDomain })
  return {
    feed,
    grants,
    presence,
    ...(checkpoints && { checkpoints }),
    async [Symbol.asyncDispose]() {
      await Promise.all([
        feed[Symbol.asyncDispose](),
        grants[Symbol.asyncDispose](),
        presence[Symbol.asyncDispose](),
        checkpoints?.[Symbol.asyncDispose](),
      ])
    },
  }
}
