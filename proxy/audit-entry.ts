import { randomUUID } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { DecisionEvent, OutcomeEvent } from '../audit/record.ts'
import type { Credential } from '../credential/issuer.ts'
import { leastSensitivity } from '../policy/cedar-request.ts'
import { deny, isDenial } from '../policy/denial.ts'
import type { Agent, Decision, GrantChain, McpMessage } from '../policy/types.ts'
import { resetClient } from './agent-side.ts'
import type { Arrival } from './arrival.ts'
import type { Described } from './describe.ts'
import type { Cut, Exchange } from './exchange.ts'
import type { ForwardOutcome } from './forward.ts'
import { refuseArrival } from './refuse-arrival.ts'
import type { Routed } from './route-arrival.ts'
import type { ShadowAnswer } from './shadow.ts'
import type { Sidecar } from './sidecar.ts'
import type { Snapshot } from './snapshot.ts'
import type { Task } from './task-resolver.ts'

/** Path bytes kept in a record: a refused target may be as long as the head limit. */
const maxPathChars = 2048

/**
 * What the audit and the metrics will say of one request. Collects facts as the path establishes them, writes the
 * decision record before anything is forwarded, and the outcome record at the end.
 */
export class AuditEntry {
  readonly decisionId = randomUUID()
  readonly #arrival: Arrival
  readonly #sidecar: Sidecar
  readonly #snapshot: Snapshot
  readonly #startedMs: number
  #route: Routed | undefined
  #agent: Agent | undefined
  #task: Task | undefined
  #described: Described | undefined
  #exchange: Exchange | undefined
  #credential: Credential | undefined
  #decision: Decision | undefined
  #outcome: ForwardOutcome | undefined
  #shadow: ShadowAnswer | undefined

  constructor(arrival: Arrival, context: { sidecar: Sidecar; snapshot: Snapshot }) {
    this.#arrival = arrival
    this.#sidecar = context.sidecar
    this.#snapshot = context.snapshot
    this.#startedMs = context.sidecar.clock.monotonic()
  }

  routed(route: Routed): void {
    this.#route = route
  }

  identified(agent: Agent): void {
    this.#agent = agent
  }

  granted(task: Task): void {
    this.#task = task
  }

  described(described: Described): void {
    this.#described = described
  }

  tracked(exchange: Exchange): void {
    this.#exchange = exchange
  }

  compared(shadow: ShadowAnswer | undefined): void {
    this.#shadow = shadow
  }

  holds(credential: Credential): void {
    this.#credential = credential
  }

  ended(outcome: ForwardOutcome): void {
    this.#outcome = outcome
  }

  /** Writes the decision record. Rejects when the audit does not take it: then nothing may be forwarded. */
  async decided(decision: Decision): Promise<void> {
    this.#decision = decision
    const { metrics, clock, audit } = this.#sidecar
    metrics.decided(this.#route?.name ?? 'none', decision)
    if (this.#shadow) metrics.shadowed(decision, this.#shadow)
    await audit.append(this.#decisionEvent(decision))
    metrics.overhead(clock.monotonic() - this.#startedMs)
  }

  /** Refuses in the dialect of the route, on record. A refusal stands even when the audit is down. */
  async refuse(refusal: Exclude<Decision, { outcome: 'allow' }>): Promise<void> {
    const { log } = this.#sidecar
    if (this.#decision === undefined) {
      await this.decided(refusal).catch((error: unknown) => {
        log.error({ err: error, decision: this.decisionId }, 'a refusal could not be put on record')
      })
    }
    this.refuseNow(refusal)
  }

  /** Writes the refusal to the agent at once; used for a cut that comes before any answer. */
  refuseNow(refusal: Exclude<Decision, { outcome: 'allow' }>): void {
    const denial = isDenial(refusal) ? refusal : deny(refusal.code, refusal.detail, refusal)
    const status = refuseArrival(this.#arrival, denial, {
      decisionId: this.decisionId,
      txn: this.#task?.chain.leaf.txn,
      message: this.#message(),
    })
    this.#outcome ??= { status, end: 'denied', error: denial.code }
  }

  /** Anything unforeseen: refused when nothing was sent yet, reset otherwise. */
  async fault(error: unknown): Promise<void> {
    const { log } = this.#sidecar
    log.error({ err: error, decision: this.decisionId }, 'unforeseen error: the request is refused')
    const { res } = this.#arrival
    if (!res.headersSent) return this.refuse(deny('request-refused', 'unforeseen error'))
    resetClient(res)
    this.#outcome = { status: res.statusCode, end: 'upstream-failed', error: 'ERR_UNFORESEEN' }
  }

  /** Writes the outcome record. */
  async close(): Promise<void> {
    const { audit, log, metrics } = this.#sidecar
    if (this.#decision === undefined) return
    const event = this.#outcomeEvent()
    metrics.ended(this.#route?.upstream.facts.name ?? 'none', event)
    await audit.append(event).catch((error: unknown) => {
      log.error({ err: error, decision: this.decisionId }, 'an outcome could not be put on record')
    })
  }

  #message() {
    const operation = this.#described?.operation
    return operation?.kind === 'mcp' ? operation.message : undefined
  }

  #decisionEvent(decision: Decision): DecisionEvent {
    const { feed, clock } = this.#sidecar
    const { view } = feed
    const ageMs = view.ageMs(clock.monotonic())
    const rid = isDenial(decision) ? decision.revocation?.rid : undefined
    const severity = decision.outcome === 'allow' ? undefined : decision.severity
    return {
      type: 'decision',
      decision_id: this.decisionId,
      route: this.#route?.name ?? null,
      upstream: this.#route?.upstream.facts.name ?? null,
      agent: this.#agent ? agentFacts(this.#agent) : null,
      task: this.#task ? taskFacts(this.#task) : null,
      request: this.#requestFacts(),
      decision: {
        effect: decision.outcome,
        code: decision.outcome === 'allow' ? null : decision.code,
        detail: decision.outcome === 'allow' ? null : decision.detail,
        policy_ids: decision.policyIds ?? [],
        policy_set_sha: this.#snapshot.engine.policySetSha,
        revocation_epoch: view.epoch,
        staleness_ms: Number.isFinite(ageMs) ? Math.round(ageMs) : -1,
        ...(rid !== undefined && { rid }),
        ...(severity !== undefined && { severity }),
        ...answersBeside(decision, this.#shadow),
      },
      after_revocation: rid !== undefined,
    }
  }

  #requestFacts(): DecisionEvent['request'] {
    const { req } = this.#arrival
    const operation = this.#described?.operation
    const message = this.#message()
    const retries = retryCount(req.headers)
    const bodySha256 = this.#described?.bodySha256
    return {
      method: req.method ?? '',
      path: (this.#route?.path ?? pathOf(req.url ?? '')).slice(0, maxPathChars),
      has_query: this.#route ? this.#route.query !== undefined : (req.url ?? '').includes('?'),
      kind: operation?.kind ?? null,
      ...(message && { mcp: mcpFacts(message) }),
      ...(bodySha256 !== undefined && { args_sha256: bodySha256 }),
      ...(retries !== undefined && { retry_count: retries }),
    }
  }

  #outcomeEvent(): OutcomeEvent {
    const exchange = this.#exchange
    const outcome = this.#outcome ?? { status: null, end: 'upstream-failed' as const }
    return {
      type: 'outcome',
      decision_id: this.decisionId,
      txn: this.#task?.chain.leaf.txn ?? null,
      status: outcome.status,
      end: exchange?.cut ? 'cut' : outcome.end,
      bytes_up: exchange?.bytesUp ?? 0,
      bytes_down: exchange?.bytesDown ?? 0,
      duration_ms: roundTo3(this.#sidecar.clock.monotonic() - this.#startedMs),
      credential: this.#credentialFacts(),
      ...(exchange?.cut && { cut: cutFacts(exchange, exchange.cut) }),
      ...(outcome.error !== undefined && { error: outcome.error }),
    }
  }

  #credentialFacts(): OutcomeEvent['credential'] {
    const issuer = this.#route?.upstream.issuer
    if (!this.#credential || !issuer) return null
    const { kind, digest } = this.#credential
    return { kind, id_sha: digest, revocation_class: issuer.revocationClass }
  }
}

/** What was said beside the decision and not enforced. */
function answersBeside(
  decision: Decision,
  shadow: ShadowAnswer | undefined,
): Pick<DecisionEvent['decision'], 'shadow' | 'observed'> {
  const observed = decision.outcome === 'allow' ? decision.observed : undefined
  return {
    ...(shadow &&
      shadow.outcome !== 'skipped' && {
        shadow: { effect: shadow.outcome, policy_ids: shadow.policyIds },
      }),
    ...(observed && {
      observed: { effect: observed.outcome, policy_ids: observed.policyIds },
    }),
  }
}

/** A verified agent or chain is one object for many requests. What is frozen is also written as text only once. */
const factsOfAgents = new WeakMap<Agent, NonNullable<DecisionEvent['agent']>>()
const factsOfChains = new WeakMap<GrantChain, NonNullable<DecisionEvent['task']>>()

function agentFacts(agent: Agent): DecisionEvent['agent'] {
  const known = factsOfAgents.get(agent)
  if (known) return known
  const facts = Object.freeze({
    spiffe_id: agent.id,
    svid_sha: agent.svidDigest,
    ...(agent.svidJti !== undefined && { svid_jti: agent.svidJti }),
  })
  factsOfAgents.set(agent, facts)
  return facts
}

function taskFacts({ chain, carrier }: Task): DecisionEvent['task'] {
  const known = factsOfChains.get(chain)
  if (known?.carrier === carrier) return known
  const above = chain.links.slice(0, -1)
  const facts = Object.freeze({
    txn: chain.leaf.txn,
    chain: Object.freeze(chain.links.map((link) => link.jti)),
    ...(above.length > 0 && {
      ancestors: Object.freeze(
        above.map(({ txn, agent }) => Object.freeze({ txn, spiffe_id: agent })),
      ),
    }),
    grant_sha: chain.leaf.s256,
    approvers: Object.freeze(chain.links.map((link) => link.approver)),
    purpose: chain.leaf.purpose,
    sensitivity: leastSensitivity(chain),
    carrier,
  })
  factsOfChains.set(chain, facts)
  return facts
}

function mcpFacts(message: McpMessage): NonNullable<DecisionEvent['request']['mcp']> {
  switch (message.type) {
    case 'tools/call':
      return { method: 'tools/call', tool: message.tool, request_id: message.id }
    case 'request':
      return { method: message.method, request_id: message.id }
    case 'notification':
      return { method: message.method }
    case 'response':
      return { method: 'response', request_id: message.id }
  }
}

function cutFacts(exchange: Exchange, cut: Cut): NonNullable<OutcomeEvent['cut']> {
  const { cutHow, cutAfterMs, lastUpMs, lastDownMs } = exchange
  const rid = cut.revocation?.rid
  const sinceCut = (ms: number): number => roundTo3(ms - cut.atMonotonicMs)
  return {
    code: cut.code,
    ...(rid !== undefined && { rid }),
    how: cutHow ?? 'reset',
    after_ms: roundTo3(cutAfterMs ?? 0),
    ...(lastUpMs !== undefined && { last_up_ms: sinceCut(lastUpMs) }),
    ...(lastDownMs !== undefined && { last_down_ms: sinceCut(lastDownMs) }),
  }
}

/** The target as sent, without its query: values of a query may be secrets. */
function pathOf(target: string): string {
  const end = target.search(/[?#]/)
  return end === -1 ? target : target.slice(0, end)
}

/**
 * How often client libraries say that they repeated a request by themselves: a count of retries, or a number of the
 * attempt, which begins with 1. Only a small number is taken over: it stands in the record.
 */
const retryHeaders: readonly (readonly [name: string, form: RegExp, first: number])[] = [
  ['x-stainless-retry-count', /^(\d{1,3})$/, 0],
  ['amz-sdk-request', /(?:^|;\s*)attempt=(\d{1,3})(?:;|$)/, 1],
  ['x-goog-api-client', /(?:^|\s)gccl-attempt-count\/(\d{1,3})(?:\s|$)/, 1],
]

function retryCount(headers: IncomingHttpHeaders): number | undefined {
  for (const [name, form, first] of retryHeaders) {
    const value = headers[name]
    const count = typeof value === 'string' ? form.exec(value)?.[1] : undefined
    if (count !== undefined) return Math.max(0, Number(count) - first)
  }
  return undefined
}

function roundTo3(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
