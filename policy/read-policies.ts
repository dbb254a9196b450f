import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'
import { readAnnotations, type Annotations } from './annotations.ts'
import type { CedarFunctions } from './cedar-instance.ts'
import {
  problemAt,
  problemOf,
  splitPolicies,
  type PolicyProblem,
  type PolicySource,
  type PolicyText,
} from './cedar-source.ts'
import { annotationStart, slotStart } from './clauses.ts'
import { observe } from './observe.ts'
import { scopeOf } from './policy-scope.ts'
import type { CompiledPolicy } from './policy-slices.ts'

/** A policy on its own: whether it suits the schema is not known yet. */
export interface Policy extends CompiledPolicy, PolicyText, Annotations {
  readonly source: PolicySource
  readonly effect: 'permit' | 'forbid'
  readonly json: PolicyJson
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
  if (long) {
    const message = tooMany('bytes in a policy', maxPolicyBytes)
    const hint = 'In place of a long set, use a group, or "like" with what its members share'
    return { policies: [], problems: [problemAt(source, { start: long.start, message, hint })] }
  }
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
/** Cedar parses what it cannot evaluate: from 104 links of `&&` on, each evaluation would cost the engine its stack. */
const maxNesting = 32
const maxDepth = 64

function readPolicy(
  policy: PolicyText,
  { source, callCedar }: { readonly source: PolicySource; readonly callCedar: CallCedar },
): Policy | PolicyProblem {
  const problem = (message: string): PolicyProblem =>
    problemAt(source, { start: policy.start, message })
  const parsed = callCedar((cedar) => cedar.policyToJson(policy.text))
  if (!parsed) return problem(engineFailed)
  if (parsed.type === 'failure') {
    const isTemplate = callCedar((cedar) => cedar.templateToJson(policy.text))?.type === 'success'
    if (isTemplate) {
      const start = policy.start + slotStart(policy.text)
      const hint = 'Write the entity itself in place of the slot'
      return problemAt(source, { start, message: 'Templates are not supported', hint })
    }
    const [error] = parsed.errors
    return error ? problemOf(source, { error, within: policy }) : problem(engineFailed)
  }
  const { effect, annotations = {} } = parsed.json
  const read = readAnnotations(annotations, { effect })
  if (!read.ok) {
    const at = read.name === undefined ? 0 : annotationStart(policy.text, read.name)
    return problemAt(source, { start: policy.start + at, message: read.message, hint: read.hint })
  }
  const complaint = lint(parsed.json)
  if (complaint !== undefined) return problem(complaint)
  const scope = scopeOf(parsed.json)
  const observations = observe(parsed.json)
  if (!scope || !observations) return problem('It holds an expression that is not supported')
  return { ...policy, ...read.annotations, source, effect, json: parsed.json, scope, observations }
}

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
  // Too deep is refused already: going on would exhaust our own stack.
  if (typeof node !== 'object' || node === null || depth > maxDepth) return { depth, unknown }
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
