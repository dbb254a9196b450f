import { attestationsOf, type OcsfEvent, type OcsfValue } from './ocsf-attestation.ts'
import {
  classification,
  control,
  failure,
  informational,
  metadataOf,
  severities,
  severity,
  status,
  success,
  unmapped,
  type Named,
} from './ocsf-base.ts'
import type {
  ReadDecision,
  ReadLift,
  ReadOutcome,
  ReadRecord,
  ReadRevocation,
} from './read-record.ts'

export interface OcsfExport {
  /** The events of the next record of a chain, as JSON text: none for a kind that has no event. */
  add(record: ReadRecord): readonly string[]
}

/**
 * Writes the records of one file as OCSF events: decisions and outcomes as API Activity (6003), revocations and lifts as
 * Entity Management (3004). Each event attests to the one before it (profile `record_integrity`).
 */
export function ocsfExport(): OcsfExport {
  const attest = attestationsOf()
  /** What was asked, until its outcome comes: an outcome does not repeat it. */
  const open = new Map<string, ReadDecision>()
  return {
    add(record) {
      switch (record.type) {
        case 'decision':
          keep(open, record)
          return [attest(record, decisionEvent(record))]
        case 'outcome': {
          const decision = open.get(record.decision_id)
          open.delete(record.decision_id)
          return [attest(record, outcomeEvent(record, decision))]
        }
        case 'revocation':
          return [attest(record, revocationEvent(record))]
        case 'lift':
          return record.lifts.map((rid, at) => attest(record, liftEvent(record, { rid, at })))
        case 'start':
        case 'stop':
        case 'config':
        case 'heartbeat':
        case 'gap':
        case 'unread':
        case 'checkpoint':
          attest(record)
          return []
      }
    },
  }
}

/** Requests in flight at once; what is forgotten has outcomes without an operation. */
const maxOpen = 100_000

function keep(open: Map<string, ReadDecision>, decision: ReadDecision): void {
  if (open.size >= maxOpen) open.clear()
  open.set(decision.decision_id, decision)
}

function decisionEvent(record: ReadDecision): OcsfEvent {
  const { decision, after_revocation: isAfter } = record
  const isAllowed = decision.effect === 'allow'
  const refused = isAfter ? severities.medium : severities.low
  return {
    ...apiActivity(record, record),
    ...severity(isAllowed ? informational : refused),
    ...status(isAllowed ? success : failure),
    ...(decision.code !== null && { status_code: decision.code }),
    ...(decision.detail !== null && { status_detail: decision.detail }),
    ...control(isAllowed ? 'allowed' : 'denied'),
    is_alert: isAfter,
    policy: { uid: decision.policy_set_sha, name: decision.policy_ids.join(' ') || 'none' },
    message: `${decision.effect} ${operationOf(record)}`,
    unmapped: unmapped(record, {
      decision_id: record.decision_id,
      revocation_epoch: decision.revocation_epoch,
      rid: decision.rid,
      purpose: record.task?.purpose,
      retry_count: record.request.retry_count,
    }),
  }
}

function outcomeEvent(record: ReadOutcome, decision: ReadDecision | undefined): OcsfEvent {
  const { end, cut, error } = record
  const isComplete = end === 'complete'
  const detail = cut?.code ?? error
  return {
    ...apiActivity(record, decision),
    ...severity(cut ? severities.medium : informational),
    ...(end === 'client-gone'
      ? status({ id: 99, name: end })
      : status(isComplete ? success : failure)),
    status_code: end,
    ...(detail !== undefined && { status_detail: detail }),
    ...control(cut ? 'cut' : end === 'denied' ? 'denied' : 'allowed'),
    is_alert: false,
    ...(record.status !== null && { http_response: { code: record.status } }),
    duration: Math.round(record.duration_ms),
    message: `${end} ${decision ? operationOf(decision) : record.decision_id}`,
    unmapped: unmapped(record, {
      decision_id: record.decision_id,
      bytes_up: record.bytes_up,
      bytes_down: record.bytes_down,
      rid: cut?.rid,
      cut_how: cut?.how,
      cut_after_ms: cut?.after_ms,
    }),
  }
}

const entityActivities: ReadonlyMap<string, Named> = new Map([
  ['revoke', { id: 9, name: 'Disable' }],
  ['quarantine', { id: 11, name: 'Deactivate' }],
  ['pause', { id: 12, name: 'Suspend' }],
])
const resume: Named = { id: 13, name: 'Resume' }

function revocationEvent(record: ReadRevocation): OcsfEvent {
  const { op, subject, reason, by, rid } = record
  const activity = entityActivities.get(op) ?? { id: 99, name: op }
  return {
    ...entityManagement(record, { activity, uid: record.hash }),
    ...severity(op === 'pause' ? severities.low : severities.medium),
    entity: { type: subject.split(':', 1)[0] ?? subject, uid: subject },
    comment: reason,
    actor: { user: { name: by, type_id: 0, type: 'Unknown' } },
    message: `${op} ${subject}`,
    unmapped: unmapped(record, {
      rid,
      recorded_at: record.recorded_at,
      expires_at: record.expires_at,
      revocation_epoch: record.revocation_epoch,
      exchanges_cut: record.exchanges_cut,
    }),
  }
}

/** One event for each revocation that the lift ends: an event is about one entity. */
function liftEvent(
  record: ReadLift,
  { rid, at }: { readonly rid: string; readonly at: number },
): OcsfEvent {
  return {
    ...entityManagement(record, { activity: resume, uid: `${record.hash}/${at}` }),
    ...severity(informational),
    entity: { type: 'revocation', uid: rid },
    comment: record.reason,
    actor: { user: { name: record.by, type_id: 2, type: 'Admin' } },
    message: `lift ${rid}`,
    unmapped: unmapped(record, { lift: record.rid, signed_at: record.signed_at }),
  }
}

const methodActivities: ReadonlyMap<string, Named> = new Map([
  ['POST', { id: 1, name: 'Create' }],
  ['GET', { id: 2, name: 'Read' }],
  ['HEAD', { id: 2, name: 'Read' }],
  ['PUT', { id: 3, name: 'Update' }],
  ['PATCH', { id: 3, name: 'Update' }],
  ['DELETE', { id: 4, name: 'Delete' }],
])

/** What an MCP message does is not told by POST, which carries them all. */
function activityOf(decision: ReadDecision | undefined): Named {
  if (!decision) return { id: 0, name: 'Unknown' }
  const { method, mcp } = decision.request
  if (mcp) return { id: 99, name: mcp.method }
  return methodActivities.get(method) ?? { id: 99, name: method }
}

function operationOf({ request: { method, path, mcp } }: ReadDecision): string {
  if (!mcp) return `${method} ${path}`
  return mcp.tool === undefined ? mcp.method : `${mcp.method} ${mcp.tool}`
}

function apiActivity(
  record: ReadDecision | ReadOutcome,
  decision: ReadDecision | undefined,
): OcsfEvent {
  const activity = activityOf(decision)
  const upstream = decision?.upstream
  const service = typeof upstream === 'string' && { service: { name: upstream } }
  return {
    ...classification({ uid: 6003, name: 'API Activity' }, activity),
    category_uid: 6,
    category_name: 'Application Activity',
    time: Date.parse(record.ts),
    metadata: metadataOf(record, {
      uid: record.hash,
      correlation: record.decision_id,
      profiles: ['security_control', 'ai_operation', 'record_integrity'],
    }),
    actor: { user: userOf(decision) },
    ...(decision && agencyOf(decision)),
    api: {
      operation: decision ? operationOf(decision) : 'unknown',
      ...service,
      request: { uid: record.decision_id },
    },
    src_endpoint: { instance_uid: record.sidecar.instance },
    ...(typeof upstream === 'string' && { dst_endpoint: { svc_name: upstream } }),
    ...(decision && {
      http_request: {
        uid: record.decision_id,
        http_method: decision.request.method,
        url: { path: decision.request.path },
      },
    }),
  }
}

function userOf(decision: ReadDecision | undefined): OcsfValue {
  const uid = decision?.agent?.spiffe_id
  if (uid === undefined) return { name: 'unidentified', type_id: 0, type: 'Unknown' }
  return { uid, type_id: 4, type: 'Service' }
}

/** The agent, the task as the run that it is in, and the last grant of the chain as the delegation that it acts under. */
function agencyOf({ agent, task }: ReadDecision): OcsfEvent {
  if (!agent) return {}
  const uids = task?.chain.map((jti, at) => `${task.approvers[at]}#${jti}`) ?? []
  const [uid, parent] = [uids.at(-1), uids.at(-2)]
  const issuer = task?.approvers.at(-1)
  return {
    ai_agent: { uid: agent.spiffe_id, ...(task && { instance_uid: task.txn }) },
    ...(uid !== undefined && {
      delegation: {
        uid,
        ...(issuer !== undefined && { issuer_uid: issuer }),
        ...(parent !== undefined && { parent_uid: parent }),
      },
    }),
  }
}

function entityManagement(
  record: ReadRevocation | ReadLift,
  { activity, uid }: { readonly activity: Named; readonly uid: string },
): OcsfEvent {
  return {
    ...classification({ uid: 3004, name: 'Entity Management' }, activity),
    category_uid: 3,
    category_name: 'Identity & Access Management',
    time: Date.parse(record.ts),
    metadata: metadataOf(record, {
      uid,
      correlation: record.rid,
      profiles: ['host', 'record_integrity'],
    }),
    src_endpoint: { instance_uid: record.sidecar.instance },
    ...status(success),
  }
}
