import { createHash } from 'node:crypto'
import {
  preparsePolicySet,
  preparseSchema,
  statefulIsAuthorized,
  type AuthorizationAnswer,
} from '@cedar-policy/cedar-wasm/nodejs'
import type { CedarRequest } from './cedar-request.ts'
import { DecisionMemo } from './decision-memo.ts'

export interface PolicyEngine extends Disposable {
  /** Sorted. */
  readonly policyIds: readonly string[]
  /** SHA-256 of schema and policies, hex. Does not depend on where the files lie, nor on their order. */
  readonly policySetSha: string
  /** False for good once Cedar has thrown too often, here or in another engine: all is denied until a restart. */
  readonly healthy: boolean
  /** What this engine answered in the current second. Goes with the engine: other policies, other answers. */
  readonly memo: DecisionMemo
  /** Never throws. Denies when anything went wrong: Cedar alone would skip a forbid that fails. */
  authorize(request: CedarRequest): CedarDecision
}

export interface CedarDecision {
  readonly decision: 'allow' | 'deny'
  /** The determining policies, sorted. Never empty with `allow`; empty with `deny` when nothing permits. */
  readonly policyIds: readonly string[]
  /** The policies that failed, sorted; or `(engine)`, `(request)` when it was not a policy. */
  readonly errors: readonly string[]
  /** The `@reason` of the first determining policy that has one. */
  readonly reason?: string
}

/** A policy that has been validated. */
export interface CompiledPolicy {
  readonly id: string
  readonly text: string
  readonly reason?: string
}

/** Loads validated policies into Cedar. Undefined when Cedar refuses them after all. */
export function createEngine(
  policies: readonly CompiledPolicy[],
  schema: string,
): PolicyEngine | undefined {
  const name = `chaperone-${(engines += 1)}`
  const staticPolicies = Object.fromEntries(policies.map(({ id, text }) => [id, text]))
  if (callCedar(() => preparseSchema(name, schema))?.type !== 'success') return undefined
  if (callCedar(() => preparsePolicySet(name, { staticPolicies }))?.type !== 'success') {
    release(name)
    return undefined
  }
  const reasons = new Map(policies.map(({ id, reason }) => [id, reason]))
  let closed = false
  return {
    policyIds: policies.map(({ id }) => id).toSorted(),
    policySetSha: shaOf(policies, schema),
    memo: new DecisionMemo(),
    get healthy() {
      return !closed && isHealthy()
    },
    authorize(request) {
      // A sick engine is not asked: its answers are no longer worth anything.
      if (closed || !isHealthy()) return failed('(engine)')
      const answer = callCedar(() =>
        statefulIsAuthorized({
          ...request,
          preparsedPolicySetId: name,
          preparsedSchemaName: name,
          validateRequest: true,
        }),
      )
      return answer ? read(answer, reasons) : failed('(engine)')
    },
    [Symbol.dispose]() {
      if (!closed) release(name)
      closed = true
    },
  }
}

/** Calls Cedar. Undefined when it threw: counted, since each throw leaks some of the one stack in the process. */
export function callCedar<T>(call: () => T): T | undefined {
  if (!isHealthy()) return undefined
  try {
    return call()
  } catch (error) {
    // A trap leaves the instance broken for good; anything else costs it a little.
    throws += error instanceof Error && error.name === 'RuntimeError' ? maxThrows : 1
    return undefined
  }
}

/** An instance dies of about 1100 throws, of 290 when they are stack overflows. */
const maxThrows = 250

let throws = 0
let engines = 0

function isHealthy(): boolean {
  return throws < maxThrows
}

function read(
  answer: AuthorizationAnswer,
  reasons: ReadonlyMap<string, string | undefined>,
): CedarDecision {
  if (answer.type === 'failure') return failed('(request)')
  const { decision, diagnostics } = answer.response
  // Cedar gives them in random order.
  const policyIds = diagnostics.reason.toSorted()
  const errors = diagnostics.errors.map(({ policyId }) => policyId).toSorted()
  const reason = policyIds.map((id) => reasons.get(id)).find((text) => text !== undefined)
  const sound = errors.length === 0 && policyIds.length > 0
  return {
    decision: decision === 'allow' && sound ? 'allow' : 'deny',
    policyIds,
    errors,
    ...(reason !== undefined && { reason }),
  }
}

function failed(what: '(engine)' | '(request)'): CedarDecision {
  return { decision: 'deny', policyIds: [], errors: [what] }
}

/** Cedar forgets nothing by itself, but a name that is used again frees what it held. */
function release(name: string): void {
  callCedar(() => preparsePolicySet(name, {}))
  callCedar(() => preparseSchema(name, ''))
}

function shaOf(policies: readonly CompiledPolicy[], schema: string): string {
  const digests = policies.map(({ id, text }) => sha256(`${id}\n${text}`)).toSorted()
  return sha256([sha256(schema), ...digests].join('\n'))
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
