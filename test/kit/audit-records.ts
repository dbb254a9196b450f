import { openAuditLog, type AuditLogOptions } from '../../audit/file-log.ts'
import type { AuditLog } from '../../audit/log.ts'
import type { DecisionEvent, LiftEvent, OutcomeEvent, RevocationEvent } from '../../audit/record.ts'
import { manualClock, type ManualClock } from './manual-clock.ts'
import { names } from './tokens.ts'

/** When the logs of tests begin. */
export const logStartMs = Date.UTC(2026, 10, 24, 12)

/** A real log of a sidecar whose time the test moves. */
export async function openTestLog(
  path: string,
  options: Partial<AuditLogOptions> & { readonly clock?: ManualClock } = {},
): Promise<{ readonly log: AuditLog; readonly clock: ManualClock } & AsyncDisposable> {
  const clock = options.clock ?? manualClock(logStartMs)
  const log = await openAuditLog({
    sink: path,
    instance: 'i1',
    version: '0.1.0',
    configSha: () => 'c1',
    maxBacklog: 1000,
    writeTimeoutMs: 5000,
    ...options,
    clock,
  })
  return { log, clock, [Symbol.asyncDispose]: () => log[Symbol.asyncDispose]() }
}

interface DecisionFacts {
  readonly id: string
  readonly txn?: string
  readonly agent?: string
  readonly effect?: DecisionEvent['decision']['effect']
  readonly rid?: string
  readonly retries?: number
  readonly tool?: string
  /** Tasks that the task hangs on, root first, each with its agent. */
  readonly ancestors?: NonNullable<DecisionEvent['task']>['ancestors']
}

export function decisionEvent(facts: DecisionFacts): DecisionEvent {
  const { id, txn = 'T-1', agent = names.agent, effect = 'allow', rid } = facts
  const { retries, tool, ancestors } = facts
  return {
    type: 'decision',
    decision_id: id,
    route: 'api',
    upstream: 'api',
    agent: { spiffe_id: agent, svid_sha: '00' },
    task: {
      txn,
      chain: [`grant-${txn}`],
      ...(ancestors && { ancestors }),
      grant_sha: 's',
      approvers: [names.approver],
      purpose: 'p',
      sensitivity: 'internal',
      carrier: 'task-id',
    },
    request: {
      method: 'GET',
      path: '/things',
      has_query: false,
      kind: 'http',
      ...(tool !== undefined && { mcp: { method: 'tools/call', tool } }),
      ...(retries !== undefined && { retry_count: retries }),
    },
    decision: {
      effect,
      code: effect === 'allow' ? null : 'task-terminated',
      detail: null,
      policy_ids: [],
      policy_set_sha: 'p',
      revocation_epoch: '1:a',
      staleness_ms: 0,
      ...(rid !== undefined && { rid }),
    },
    after_revocation: rid !== undefined,
  }
}

export function outcomeEvent(
  id: string,
  cut?: {
    readonly rid: string
    readonly how: 'reset' | 'close-1008'
    readonly afterMs: number
    readonly lastUpMs?: number
    readonly lastDownMs?: number
  },
): OutcomeEvent {
  return {
    type: 'outcome',
    decision_id: id,
    txn: 'T-1',
    status: 200,
    end: cut ? 'cut' : 'complete',
    bytes_up: 10,
    bytes_down: 100,
    duration_ms: 1,
    credential: null,
    ...(cut && {
      cut: {
        code: 'task-terminated',
        rid: cut.rid,
        how: cut.how,
        after_ms: cut.afterMs,
        ...(cut.lastUpMs !== undefined && { last_up_ms: cut.lastUpMs }),
        ...(cut.lastDownMs !== undefined && { last_down_ms: cut.lastDownMs }),
      },
    }),
  }
}

export function revocationEvent(
  changes: Partial<Omit<RevocationEvent, 'type'>> = {},
): RevocationEvent {
  return {
    type: 'revocation',
    rid: 'rev-1',
    op: 'revoke',
    subject: 'task:T-1',
    reason: 'wrong customer',
    by: 'ops',
    recorded_at: new Date(logStartMs).toISOString(),
    revocation_epoch: '1:a',
    exchanges_cut: 0,
    ...changes,
  }
}

export function liftEvent(changes: Partial<Omit<LiftEvent, 'type'>> = {}): LiftEvent {
  return {
    type: 'lift',
    rid: 'lift-1',
    lifts: ['rev-1'],
    reason: 'looked at it',
    by: 'oncall',
    signed_at: new Date(logStartMs).toISOString(),
    revocation_epoch: '2:b',
    ...changes,
  }
}
