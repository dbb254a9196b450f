import Counter from 'prom-client/lib/counter.js'
import Gauge from 'prom-client/lib/gauge.js'
import Histogram from 'prom-client/lib/histogram.js'
import Registry from 'prom-client/lib/registry.js'
import type { OutcomeEvent } from '../audit/record.ts'
import type { Issuer } from '../credential/issuer.ts'
import type { Decision, RevocationOp } from '../policy/types.ts'
import type { ShadowAnswer } from './shadow.ts'
import { createTally } from './tally.ts'
import type { UnreadReason } from './unread-requests.ts'
import { version } from './version.ts'

/** What the gauges read when they are scraped. */
export interface MetricsSource {
  exchanges(): number
  /** Seconds; Infinity before the first sync. */
  revocationAgeSeconds(): number
  revocationConnected(): boolean
  revocationRecords(): number
  revocationMissingInStore(): number
  denyFileSubjects(): number
  denyFileProblems(): number
  auditBacklog(): number
  auditSpooled(): number
  policyHealthy(): boolean
  /** Share of the heap's limit in use, 0 to 1. */
  heapUsedRatio(): number
  /** Seconds by quantile, since the last scrape. */
  eventLoopDelaySeconds(): ReadonlyMap<string, number>
  /** Seconds since each trust domain's bundle was confirmed. */
  bundleAgesSeconds(): ReadonlyMap<string, number>
}

/** Prometheus metrics. Every label has a closed set of values: names from the configuration and our own enums (docs/metrics.md). */
export interface Metrics {
  decided(route: string, decision: Decision): void
  /** Something was refused before there was a request to decide. */
  unread(reason: UnreadReason): void
  /** What shadow policies said of a decision. */
  shadowed(decision: Decision, shadow: ShadowAnswer): void
  /** Milliseconds from arrival to the decision on record. */
  overhead(ms: number): void
  ended(upstream: string, event: OutcomeEvent): void
  credentialIssued(kind: Issuer['kind'], outcome: 'issued' | 'failed'): void
  revocationApplied(op: RevocationOp): void
  configReloaded(result: 'applied' | 'rejected'): void
  checkpointStored(outcome: 'stored' | 'failed'): void
  /** By a remembered answer, or by Cedar. Told for every decision: it only adds to a number. */
  policyAnswered(by: 'memo' | 'engine'): void
  policySelfChecked(result: 'same' | 'different'): void
  policyEngineReplaced(): void
  /** Attaches the gauges; without it they are absent. */
  observe(source: MetricsSource): void
  /** Prometheus text. */
  expose(): Promise<{ readonly contentType: string; readonly text: string }>
}

const overheadBuckets = [
  0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.005, 0.02, 0.1, 0.5, 2,
]
const cutBuckets = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]

export function createMetrics(): Metrics {
  const registry = new Registry()
  const registers = [registry]
  const decisions = new Counter({
    name: 'chaperone_decisions_total',
    help: 'Decisions by route, effect and denial code',
    labelNames: ['route', 'effect', 'code'] as const,
    registers,
  })
  const unread = new Counter({
    name: 'chaperone_unread_requests_total',
    help: 'What was refused before there was a request to decide, by reason',
    labelNames: ['reason'] as const,
    registers,
  })
  const observed = new Counter({
    name: 'chaperone_observed_total',
    help: 'Requests that policies refused and that an observed route or task let through',
    labelNames: ['route'] as const,
    registers,
  })
  const shadows = new Counter({
    name: 'chaperone_shadow_decisions_total',
    help: 'Answers of shadow policies, by what was decided and what they would have decided',
    labelNames: ['effect', 'shadow'] as const,
    registers,
  })
  const overheadSeconds = new Histogram({
    name: 'chaperone_decision_seconds',
    help: 'From the arrival of a request to its decision on record',
    buckets: overheadBuckets,
    registers,
  })
  const ended = createTally(registry, {
    name: 'chaperone_exchanges_total',
    help: 'Ended exchanges by upstream and how they ended',
    labelNames: ['upstream', 'end'],
  })
  const bytes = createTally(registry, {
    name: 'chaperone_exchange_bytes_total',
    help: 'Body bytes by upstream and direction',
    labelNames: ['upstream', 'direction'],
  })
  const cutSeconds = new Histogram({
    name: 'chaperone_cut_seconds',
    help: 'From a revocation in force here to the end of each exchange that it covered',
    buckets: cutBuckets,
    registers,
  })
  const credentials = new Counter({
    name: 'chaperone_credentials_total',
    help: 'Credentials by issuer kind and outcome',
    labelNames: ['kind', 'outcome'] as const,
    registers,
  })
  const revocations = new Counter({
    name: 'chaperone_revocations_applied_total',
    help: 'Revocation records that came into force here',
    labelNames: ['op'] as const,
    registers,
  })
  const reloads = new Counter({
    name: 'chaperone_config_reloads_total',
    help: 'Configuration reloads by result',
    labelNames: ['result'] as const,
    registers,
  })
  const checkpoints = new Counter({
    name: 'chaperone_checkpoints_total',
    help: 'Signed audit checkpoints that were sent to the store, by outcome',
    labelNames: ['outcome'] as const,
    registers,
  })
  const answers = { memo: 0, engine: 0 }
  registry.registerMetric(
    new Counter({
      name: 'chaperone_policy_answers_total',
      help: 'Answers of the policies, remembered ones and those of the engine',
      labelNames: ['by'] as const,
      registers: [],
      collect() {
        this.reset()
        this.inc({ by: 'memo' }, answers.memo)
        this.inc({ by: 'engine' }, answers.engine)
      },
    }),
  )
  const selfChecks = new Counter({
    name: 'chaperone_policy_self_checks_total',
    help: 'Policy decisions that were made again in the plain way',
    labelNames: ['result'] as const,
    registers,
  })
  const replacements = new Counter({
    name: 'chaperone_policy_engine_replacements_total',
    help: 'Policy engines that were worn out or broken, and replaced',
    registers,
  })
  new Gauge({
    name: 'chaperone_build_info',
    help: 'Always 1',
    labelNames: ['version'] as const,
    registers,
  })
    .labels(version)
    .set(1)

  return {
    decided(route, decision) {
      const code = decision.outcome === 'allow' ? 'none' : decision.code
      decisions.inc({ route, effect: decision.outcome, code })
      if (decision.outcome === 'allow' && decision.observed) observed.inc({ route })
    },
    unread: (reason) => unread.inc({ reason }),
    shadowed({ outcome }, shadow) {
      shadows.inc({ effect: outcome, shadow: shadow.outcome })
    },
    overhead: (ms) => overheadSeconds.observe(ms / 1000),
    ended(upstream, event) {
      ended(upstream, event.end)
      if (event.bytes_up > 0) bytes(upstream, 'up', event.bytes_up)
      if (event.bytes_down > 0) bytes(upstream, 'down', event.bytes_down)
      if (event.cut) cutSeconds.observe(event.cut.after_ms / 1000)
    },
    credentialIssued: (kind, outcome) => credentials.inc({ kind, outcome }),
    revocationApplied: (op) => revocations.inc({ op }),
    configReloaded: (result) => reloads.inc({ result }),
    checkpointStored: (outcome) => checkpoints.inc({ outcome }),
    policyAnswered: (by) => void (answers[by] += 1),
    policySelfChecked: (result) => selfChecks.inc({ result }),
    policyEngineReplaced: () => replacements.inc(),
    observe: (source) => observe(registry, source),
    expose: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
  }
}

function observe(registry: Registry, source: MetricsSource): void {
  const gauge = (name: string, { help, read }: { help: string; read: () => number }): void => {
    registry.registerMetric(
      new Gauge({
        name,
        help,
        registers: [],
        collect() {
          this.set(read())
        },
      }),
    )
  }
  gauge('chaperone_exchanges_in_flight', {
    help: 'Requests and streams in flight',
    read: () => source.exchanges(),
  })
  gauge('chaperone_revocation_age_seconds', {
    help: 'Age of the revocation view; past its bound requests are refused',
    read: () => source.revocationAgeSeconds(),
  })
  gauge('chaperone_revocation_connected', {
    help: '1 while the revocation feed is connected',
    read: () => Number(source.revocationConnected()),
  })
  gauge('chaperone_revocation_records', {
    help: 'Revocation records in force',
    read: () => source.revocationRecords(),
  })
  gauge('chaperone_revocation_missing_in_store', {
    help: 'Records held here that the store no longer has: it lost data',
    read: () => source.revocationMissingInStore(),
  })
  gauge('chaperone_deny_file_subjects', {
    help: 'Subjects that the deny file denies',
    read: () => source.denyFileSubjects(),
  })
  gauge('chaperone_deny_file_problems', {
    help: 'Lines of the deny file that cannot be read; 1 when the whole file cannot',
    read: () => source.denyFileProblems(),
  })
  gauge('chaperone_audit_backlog', {
    help: 'Audit records that wait for the sink',
    read: () => source.auditBacklog(),
  })
  gauge('chaperone_audit_spooled', {
    help: 'Audit records that requests went on with and that the sink does not have yet',
    read: () => source.auditSpooled(),
  })
  gauge('chaperone_policy_healthy', {
    help: '1 while the policy engine can decide',
    read: () => Number(source.policyHealthy()),
  })
  gauge('chaperone_heap_used_ratio', {
    help: 'Share of the heap limit in use; from 0.98 on nothing new is taken on',
    read: () => source.heapUsedRatio(),
  })
  registry.registerMetric(
    new Gauge({
      name: 'chaperone_event_loop_delay_seconds',
      help: 'How late the event loop was since the last scrape',
      labelNames: ['quantile'] as const,
      registers: [],
      collect() {
        for (const [quantile, delay] of source.eventLoopDelaySeconds())
          this.set({ quantile }, delay)
      },
    }),
  )
  registry.registerMetric(
    new Gauge({
      name: 'chaperone_trust_bundle_age_seconds',
      help: 'Since the bundle of each trust domain was last confirmed',
      labelNames: ['trust_domain'] as const,
      registers: [],
      collect() {
        // A domain that a reload took out must not grow old here for ever.
        this.reset()
        for (const [trustDomain, age] of source.bundleAgesSeconds())
          this.set({ trust_domain: trustDomain }, age)
      },
    }),
  )
}
