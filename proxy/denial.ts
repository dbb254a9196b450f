import type { Denial, DenialCode } from '../policy/types.ts'
import type { AgentResponse } from './arrival.ts'
import type { Cut } from './exchange.ts'

/** What a refusal needs besides its reason. */
export interface RefusalContext {
  readonly decisionId: string
  readonly txn?: string | undefined
  /** The request's Accept field. */
  readonly accept?: string | undefined
  /** Close the connection after the answer: the rest of the request was not read. */
  readonly close?: boolean
}

/** HTTP status of each code on a `rest` route. 401 only for the identity; never a status that SDKs retry, but 503. */
const statusOf: Readonly<Record<DenialCode, number>> = {
  'identity-required': 401,
  'identity-invalid': 401,
  'credential-ambiguous': 400,
  'task-grant-required': 403,
  'task-grant-invalid': 403,
  'task-conflict': 403,
  'task-expired': 403,
  'task-terminated': 403,
  'task-paused': 503,
  'agent-quarantined': 403,
  'policy-denied': 403,
  'approval-required': 403,
  'approval-quorum': 403,
  'task-limit': 429,
  'control-plane-stale': 503,
  'upstream-credential-unavailable': 503,
  'upstream-credential-rejected': 502,
  'upstream-unreachable': 502,
  'request-refused': 400,
}

/** One sentence of fact and one of advice, for the agent's model. No policy text, no names of others. */
const sentenceOf: Readonly<Record<DenialCode, string>> = {
  'identity-required':
    'No agent identity was presented. Send a JWT-SVID as "Authorization: Bearer".',
  'identity-invalid':
    'The agent identity was not accepted. Fetch a fresh JWT-SVID for this proxy and try again.',
  'credential-ambiguous': 'More than one credential was presented. Send exactly one.',
  'task-grant-required':
    'This call needs a task grant and none was presented. Ask for an approved task.',
  'task-grant-invalid': 'The task grant was not accepted. Do not retry; ask for a new approval.',
  'task-conflict': 'The request names more than one task. Send exactly one task selector.',
  'task-expired': 'The approval of this task has expired. Do not retry; ask for a new approval.',
  'task-terminated':
    'This task was revoked by an operator. Do not retry; this will not change. Tell the user and stop.',
  'task-paused': 'This task is paused by an operator. Wait for it to be resumed.',
  'agent-quarantined':
    'This agent was quarantined by an operator. Do not retry; tell the user and stop.',
  'policy-denied':
    'This call is outside what was approved for the task. Do not retry it; use another way or ask for approval.',
  'approval-required': 'This call needs an approval of its own. Ask for it before trying again.',
  'approval-quorum':
    'This task lacks a required sign-off. Do not retry; ask for the missing approval.',
  'task-limit': 'The limit of this task is used up. Do not retry.',
  'control-plane-stale':
    'Authorization state is not fresh enough to act on. Nothing was sent; this is temporary.',
  'upstream-credential-unavailable':
    'No credential could be issued for this upstream. Nothing was sent.',
  'upstream-credential-rejected': 'The upstream did not accept the credential of this task.',
  'upstream-unreachable': 'The upstream could not be reached or did not answer correctly.',
  'request-refused':
    'The request is malformed or has more than one reading. Nothing was sent; change the request.',
}

/** Codes that pass by themselves: the only ones with Retry-After. */
const retryAfterSeconds: Readonly<Partial<Record<DenialCode, number>>> = {
  'task-paused': 5,
  'control-plane-stale': 1,
}

export function denialStatus(code: DenialCode): number {
  return statusOf[code]
}

/** The text that an agent's model reads, under 400 characters. */
export function denialText(denial: Pick<Denial, 'code' | 'reason'>): string {
  const sentence = sentenceOf[denial.code]
  return denial.reason === undefined
    ? sentence
    : `${sentence} Reason: ${denial.reason}`.slice(0, 400)
}

export function denialOfCut(cut: Cut): Denial {
  return {
    outcome: 'deny',
    code: cut.code,
    detail: 'cut while in flight',
    ...(cut.revocation && { revocation: cut.revocation }),
  }
}

/** Fields on every refusal, whatever its dialect: clients must not retry, caches must not keep. */
export function denialHeaders(code: DenialCode, decisionId: string): string[] {
  const headers = [
    'x-should-retry',
    'false',
    'cache-control',
    'no-store',
    'chaperone-decision',
    decisionId,
    'chaperone-denial',
    code,
  ]
  const retryAfter = retryAfterSeconds[code]
  if (retryAfter !== undefined) headers.push('retry-after', String(retryAfter))
  if (code === 'identity-required') headers.push('www-authenticate', 'Bearer realm="chaperone"')
  if (code === 'identity-invalid') {
    headers.push('www-authenticate', 'Bearer realm="chaperone", error="invalid_token"')
  }
  return headers
}

/**
 * The default dialect: RFC 9457 members plus `message` and `error`, because the OpenAI, Octokit and Stripe clients read
 * those, and plain `application/json` unless Accept asks, because Octokit and gaxios do not parse `problem+json`.
 */
export function refuse(res: AgentResponse, denial: Denial, context: RefusalContext): void {
  const status = statusOf[denial.code]
  const text = denialText(denial)
  const wantsProblem = context.accept?.includes('application/problem+json') ?? false
  const body = JSON.stringify({
    type: `urn:chaperone:denial:${denial.code}`,
    title: denial.code,
    status,
    detail: text,
    code: denial.code,
    decision_id: context.decisionId,
    retryable: retryAfterSeconds[denial.code] !== undefined,
    ...(context.txn !== undefined && { txn: context.txn }),
    ...(denial.revocation && { effective_at: new Date(denial.revocation.atMs).toISOString() }),
    message: text,
    error: { code: denial.code, type: 'permission_error', message: text },
  })
  const headers = denialHeaders(denial.code, context.decisionId)
  headers.push('content-type', wantsProblem ? 'application/problem+json' : 'application/json')
  headers.push('content-length', String(Buffer.byteLength(body)))
  if (context.close === true) headers.push('connection', 'close')
  res.sendDate = false
  res.writeHead(status, headers)
  res.end(body)
}
