import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { CedarFunctions } from './cedar-instance.ts'
import {
  problemAt,
  problemOf,
  splitPolicies,
  type PolicyProblem,
  type PolicySource,
  type PolicyText,
} from './cedar-source.ts'
import { observe } from './observe.ts'
import { scopeOf } from './policy-scope.ts'
import type { CompiledPolicy } from './policy-slices.ts'

/** A policy on its own: whether it suits the schema is not known yet. */
export interface Policy extends CompiledPolicy, PolicyText {
  readonly source: PolicySource
}

/** Calls a Cedar that may be lost by it. Undefined when it threw. */
export type CallCedar = <T>(ask: (cedar: CedarFunctions) => T) => T | undefined

export interface ReadPolicies {
  readonly policies: readonly Policy[]
  readonly problems: readonly PolicyProblem[]
}

export const engineFailed = 'Cedar failed on it: it may be too deep or too long'

/** Reads the policies of one file, or says what is wrong with each. */
export function readPolicies(source: PolicySource, callCedar: CallCedar): ReadPolicies {
  const { text } = source
  const failed = (start: number, message: string): ReadPolicies => ({
    policies: [],
    problems: [problemAt(source, { start, message })],
  })
  if (!text.isWellFormed()) return failed(0, 'Expected Unicode text')
  const split = splitPolicies(text, { maxNesting })
  if (!split.ok) return failed(split.start, tooMany('brackets within each other', maxNesting))
  const long = split.policies.find((policy) => Buffer.byteLength(policy.text) > maxPolicyBytes)
  if (long) return failed(long.start, tooMany('bytes in a policy', maxPolicyBytes))
  const parts = callCedar((cedar) => cedar.policySetTextToParts(text))
  if (!parts) return failed(0, engineFailed)
  if (parts.type === 'failure') {
    const within = { text, start: 0 }
    return {
      policies: [],
      problems: parts.errors.map((error) => problemOf(source, { error, within })),
    }
  }
  // Were the two to disagree on where a policy ends, one would silently be left out.
  if (parts.policies.length + parts.policy_templates.length !== split.policies.length) {
    return failed(0, 'Cannot tell where its policies end')
  }
  const read = split.policies.map((policy) => readPolicy(policy, { source, callCedar }))
  return {
    policies: read.filter((one) => 'id' in one),
    problems: read.filter((one) => 'message' in one),
  }
}

const maxPolicyBytes = 16 * 1024
const maxReasonLength = 500
/** Cedar parses what it cannot evaluate: from 104 links of `&&` on, each evaluation would cost the engine its stack. */
const maxNesting = 32
const maxDepth = 64

function readPolicy(
  policy: PolicyText,
  { source, callCedar }: { readonly source: PolicySource; readonly callCedar: CallCedar },
): Policy | PolicyProblem {
  const problem = (message: string, hint?: string): PolicyProblem =>
    problemAt(source, { start: policy.start, message, ...(hint !== undefined && { hint }) })
  const parsed = callCedar((cedar) => cedar.policyToJson(policy.text))
  if (!parsed) return problem(engineFailed)
  if (parsed.type === 'failure') {
    const isTemplate = callCedar((cedar) => cedar.templateToJson(policy.text))?.type === 'success'
    if (isTemplate) return problem('Templates are not supported', 'Write a policy without "?"')
    const [error] = parsed.errors
    return error ? problemOf(source, { error, within: policy }) : problem(engineFailed)
  }
  const { annotations: { id, reason } = {} } = parsed.json
  if (!id || !idForm.test(id)) {
    return problem(
      'Expected an @id of letters, digits and ._/-',
      'Write @id("team/rule") before it',
    )
  }
  if (reason && reason.length > maxReasonLength) {
    return problem(`Expected at most ${maxReasonLength} characters of @reason`)
  }
  const complaint = lint(parsed.json)
  if (complaint !== undefined) return problem(complaint)
  const scope = scopeOf(parsed.json)
  const observations = observe(parsed.json)
  if (!scope || !observations) return problem('It holds an expression that is not supported')
  return { ...policy, source, id, scope, observations, ...(reason && { reason }) }
}

const idForm = /^[A-Za-z0-9._/-]{1,128}$/

function lint({ conditions }: PolicyJson): string | undefined {
  const { depth, unknown } = inspect(conditions, 0)
  // Valid to Cedar, and an error on each evaluation.
  if (unknown) return 'The function "unknown" is not supported'
  return depth > maxDepth ? 'Expected a shorter condition: split it, or use a set' : undefined
}

/** Two levels of JSON are one of Cedar: the operator and its operands. */
function inspect(
  node: unknown,
  level: number,
): { readonly depth: number; readonly unknown: boolean } {
  let depth = level / 2
  let unknown = false
  if (typeof node !== 'object' || node === null) return { depth, unknown }
  for (const [key, value] of Object.entries(node)) {
    const inner = inspect(value, level + 1)
    depth = Math.max(depth, inner.depth)
    // An array under the name is a call; a record's member of this name is an object.
    unknown ||= inner.unknown || (key === 'unknown' && Array.isArray(value))
  }
  return { depth, unknown }
}

export function tooMany(what: string, most: number): string {
  return `Expected at most ${most} ${what}`
}
