import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { CheckpointStore } from '../audit/checkpoint.ts'
import type { AuditEvent } from '../audit/record.ts'
import type { Config } from '../config/schema.ts'
import { CredentialCache } from '../credential/cache.ts'
import { deny } from '../policy/denial.ts'
import type { Clock } from '../policy/types.ts'
import type { RevocationFeed } from '../revocation/feed.ts'
import type { GrantStore } from '../revocation/grant-store.ts'
import type { Presence } from '../revocation/presence.ts'
import { startAdminListener, type CheckResult } from './admin.ts'
import { auditLogOf } from './audit-log-of.ts'
import { drain } from './drain.ts'
import { enforce, recordLift } from './enforce.ts'
import { engineObserver } from './engine-observer.ts'
import { checkpointsOf } from './checkpoints-of.ts'
import { watchEventLoopDelay, type EventLoopDelay } from './event-loop-delay.ts'
import { Exchanges } from './exchanges.ts'
import type { WatchedFiles } from './file-identity.ts'
import { handle } from './handle.ts'
import { createListener } from './listener.ts'
import type { Log } from './log.ts'
import { createMetrics } from './metrics.ts'
import { readHeap, watchOverload } from './overload.ts'
import { remarksOn } from './policies.ts'
import { presenceSource } from './presence-source.ts'
import { putOnRecord } from './put-on-record.ts'
import { checkReady } from './readiness.ts'
import type { Sidecar } from './sidecar.ts'
import { createSnapshot, SnapshotError, type Snapshot } from './snapshot.ts'
import { createTaskResolver, drainable } from './task-resolver.ts'
import { UnreadRequests } from './unread-requests.ts'
import { version } from './version.ts'

/** A sidecar that listens. Disposal drains it: refuses new tasks, waits for the rest to a deadline, cuts what is left. */
export interface RunningSidecar extends AsyncDisposable {
  readonly agentUrl: string
  readonly adminUrl: string
  /** Resolves once every readiness check has held. */
  readonly ready: Promise<void>
  /** Builds a snapshot of the new configuration and swaps it in whole; rejects and keeps the old one when it is bad. */
  reload(next: LoadedConfig): Promise<void>
  /** Counts the result of a reload. */
  reloaded(result: 'applied' | 'rejected' | 'unchanged'): void
  /** What the policies in force were made of: a change calls for a reload. */
  readonly watched: WatchedFiles
}

export interface LoadedConfig {
  readonly config: Config
  readonly sha256: string
}

interface StartOptions extends LoadedConfig {
  /** Where revocations come from. Started here; whoever opened it disposes of it, after the sidecar. */
  readonly feed: RevocationFeed
  readonly grants: GrantStore
  /** How operators see this sidecar; whoever opened it disposes of it, after the sidecar. Absent: they do not. */
  readonly presence?: Presence
  /** Where the fleet keeps its signed checkpoints. Absent: only the audit log has them. */
  readonly checkpoints?: CheckpointStore
  readonly clock: Clock
  readonly log: Log
}

/** How often streams are looked at for a stale view or an expired grant. */
const streamCheckMs = 250
/** A silence in the audit that is longer than this means that the sidecar was not there. */
const heartbeatMs = 60_000
const pollMs = 25
/** A replaced snapshot lives on this long for the requests that began under it. */
const retireMs = 60_000

/** Builds every part, listens, and serves until disposed. */
export async function startSidecar(options: StartOptions): Promise<RunningSidecar> {
  const { clock, log, feed, presence } = options
  // Until everything stands: a port that is taken must end the process, not leave it half alive.
  await using unwind = new AsyncDisposableStack()
  const metrics = createMetrics()
  const observer = engineObserver({ metrics, log })
  let snapshot = unwind.use(
    await createSnapshot({ ...options, configSha: options.sha256, observer }),
  )
  remark(snapshot, log)
  const { audit: auditConfig, limits, listen } = options.config
  const instance = randomUUID()
  const audit = unwind.use(
    await auditLogOf(auditConfig, { instance, configSha: () => snapshot.configSha, clock, log }),
  )
  const exchanges = new Exchanges({ clock })
  const tasks = drainable(createTaskResolver({ store: options.grants, clock }))
  const credentials = new CredentialCache({
    clock,
    onIssued: (kind) => metrics.credentialIssued(kind, 'issued'),
  })
  const sidecar: Sidecar = {
    get snapshot() {
      return snapshot
    },
    feed,
    tasks,
    exchanges,
    track(tracked) {
      if (overload.state === 'refuse') return deny('task-limit', 'the memory is nearly used up')
      return exchanges.count < limits.maxExchanges
        ? exchanges.track(tracked)
        : deny('task-limit', 'too many exchanges are in flight')
    },
    credentials,
    audit,
    metrics,
    log,
    clock,
  }
  feed.onApplied((records) => enforce(sidecar, { records, presence }))
  feed.onLifted((lift) => recordLift(sidecar, lift))
  feed.start()

  const overload = unwind.use(
    watchOverload({
      readHeap,
      shrink: () => {
        credentials.clear()
        listener.closeIdle()
      },
      log,
    }),
  )
  const unread = new UnreadRequests({ metrics, record: (event) => putOnRecord(sidecar, event) })
  const listener = createListener({
    handle: (arrival) => handle(arrival, sidecar),
    limits,
    ...(listen.tls && { tls: listen.tls }),
    unread: (reason) => unread.note(reason),
    clock,
    log,
    isOverloaded: () => overload.state === 'refuse',
  })
  let draining = false
  let refusedAtMs: number | undefined
  const ready = (): readonly CheckResult[] => checkReady(sidecar, { draining, refusedAtMs })
  let started = false
  const admin = unwind.use(
    await startAdminListener({
      address: listen.admin,
      live: () => [{ name: 'process', ok: true, detail: `version ${version}` }],
      ready,
      started: () => [
        { name: 'started', ok: started, detail: started ? 'was ready' : 'not ready yet' },
      ],
      metrics,
      jwks: () => snapshot.mintKeys?.jwks() ?? { keys: [] },
    }),
  )
  const eventLoop = unwind.use(watchEventLoopDelay())
  observe(sidecar, { eventLoop })
  const agentUrl = await listener.listen(listen.agent)
  await putOnRecord(sidecar, {
    type: 'start',
    detail: { policy_set_sha: snapshot.engine.policySetSha },
  })

  const checkpoints = checkpointsOf(sidecar, {
    config: auditConfig.checkpoint,
    instance,
    store: options.checkpoints,
  })
  const streamCheck = setInterval(() => endDeadStreams(sidecar), streamCheckMs)
  const heartbeat = setInterval(() => void putOnRecord(sidecar, heartbeatOf(sidecar)), heartbeatMs)
  const stopped = new AbortController()
  const isReady = (): boolean => ready().every(({ ok }) => ok)
  presence?.start(presenceSource(sidecar, { instance, isReady }))
  const becameReady = (async () => {
    while (!isReady()) {
      await delay(pollMs, undefined, { signal: stopped.signal })
    }
    started = true
  })()
  becameReady.catch(() => undefined)
  unwind.move()

  return {
    agentUrl,
    adminUrl: admin.url,
    ready: becameReady,
    async reload({ config, sha256 }) {
      const fixed = changedFixedSetting(snapshot.config, config)
      if (fixed !== undefined) throw new SnapshotError(`A change of "${fixed}" needs a restart`)
      const built = { config, configSha: sha256, clock, observer, inBackground: true }
      const next = await createSnapshot(built)
      const old = snapshot
      snapshot = next
      remark(next, log)
      credentials.clear()
      retire(old, log)
      await putOnRecord(sidecar, {
        type: 'config',
        detail: { sha256, policy_set_sha: next.engine.policySetSha },
      })
    },
    get watched() {
      return snapshot.watched
    },
    reloaded(result) {
      refusedAtMs = result === 'rejected' ? clock.now() : undefined
      if (result !== 'unchanged') metrics.configReloaded(result)
    },
    async [Symbol.asyncDispose]() {
      draining = true
      stopped.abort()
      tasks.drain()
      log.info(
        { inFlight: exchanges.count, deadlineMs: snapshot.config.shutdown.drain },
        'draining',
      )
      const withinMs = snapshot.config.shutdown.drain
      const cut = await drain({ exchanges, listener, clock, withinMs })
      await listener[Symbol.asyncDispose]()
      clearInterval(streamCheck)
      clearInterval(heartbeat)
      overload[Symbol.dispose]()
      eventLoop[Symbol.dispose]()
      await unread[Symbol.asyncDispose]()
      await putOnRecord(sidecar, { type: 'stop', detail: { cut } })
      await checkpoints?.[Symbol.asyncDispose]()
      await audit
        .flush()
        .catch((error: unknown) => log.error({ err: error }, 'the audit could not be flushed'))
      await audit[Symbol.asyncDispose]()
      await admin[Symbol.asyncDispose]()
      await snapshot[Symbol.asyncDispose]()
    },
  }
}

/** In force all the same: it is valid. `chaperone check` shows it before. */
function remark({ policies, config }: Snapshot, log: Log): void {
  for (const line of remarksOn(policies, config)) log.warn({}, line)
}

/** What a stream carries can no longer be revoked once the view is too old, and is no longer approved once a grant ends. */
function endDeadStreams({ exchanges, feed, snapshot, clock, log }: Sidecar): void {
  const expired = exchanges.cutExpired(clock.now())
  if (expired > 0) log.info({ cut: expired }, 'streams cut: their grant has expired')
  if (feed.view.ageMs(clock.monotonic()) <= snapshot.config.revocation.staleAfterStreams) return
  const stale = exchanges.cutAll('control-plane-stale')
  if (stale > 0) log.warn({ cut: stale }, 'streams cut: the revocation view is stale')
}

/** Proves absence: between two of these, nothing happened that is not on record. */
function heartbeatOf({ feed, clock, exchanges }: Sidecar): AuditEvent {
  const ageMs = feed.view.ageMs(clock.monotonic())
  return {
    type: 'heartbeat',
    detail: {
      revocation_epoch: feed.view.epoch,
      staleness_ms: Number.isFinite(ageMs) ? Math.round(ageMs) : -1,
      exchanges: exchanges.count,
    },
  }
}

function observe(sidecar: Sidecar, { eventLoop }: { readonly eventLoop: EventLoopDelay }): void {
  const { metrics, exchanges, feed, clock, audit } = sidecar
  metrics.observe({
    exchanges: () => exchanges.count,
    revocationAgeSeconds: () => feed.view.ageMs(clock.monotonic()) / 1000,
    revocationConnected: () => feed.status().connected,
    revocationRecords: () => feed.status().records,
    revocationMissingInStore: () => feed.status().missingInStore,
    denyFileSubjects: () => feed.status().denyFile?.subjects ?? 0,
    denyFileProblems: () => feed.status().denyFile?.problems ?? 0,
    auditBacklog: () => audit.backlog,
    auditSpooled: () => audit.spooled,
    policyHealthy: () => sidecar.snapshot.engine.healthy,
    heapUsedRatio: readHeap,
    eventLoopDelaySeconds: () => eventLoop.read(),
    bundleAgesSeconds: () =>
      new Map(
        sidecar.snapshot.bundles
          .status()
          .map(({ trustDomain, ageMs }) => [trustDomain, ageMs / 1000]),
      ),
  })
}

/** Settings whose parts live as long as the process. */
const fixedSettings = [
  'trustDomain',
  'listen',
  'operators',
  'revocation',
  'audit',
  'limits',
  'log',
] as const

function changedFixedSetting(old: Config, next: Config): string | undefined {
  return fixedSettings.find((name) => JSON.stringify(old[name]) !== JSON.stringify(next[name]))
}

function retire(old: Snapshot, log: Log): void {
  const close = async (): Promise<void> => {
    try {
      await old[Symbol.asyncDispose]()
    } catch (error) {
      log.error({ err: error }, 'a replaced configuration could not be closed')
    }
  }
  setTimeout(() => void close(), retireMs).unref()
}
