import {
  policySetTextToParts,
  policyToJson,
  templateToJson,
  validate,
  type DetailedError,
  type PolicyJson,
} from '@cedar-policy/cedar-wasm/nodejs'
import { callCedar, createEngine, type PolicyEngine } from './cedar-engine.ts'
import {
  problemAt,
  problemOf,
  splitPolicies,
  type PolicyProblem,
  type PolicySource,
  type PolicyText,
} from './cedar-source.ts'

export type { CedarDecision, PolicyEngine } from './cedar-engine.ts'
export type { PolicyProblem, PolicySource } from './cedar-source.ts'

export type CompileResult =
  | { readonly ok: true; readonly engine: PolicyEngine }
  | { readonly ok: false; readonly problems: readonly PolicyProblem[] }

interface CompileOptions {
  readonly schema: string
  /** Leaves this policy out: a test that still passes then does not hold it. */
  readonly without?: string
}

/**
 * Compiles policy files against the schema, strictly: a policy that might never apply, or whose attribute nobody sets,
 * is a problem. The engine is ready to decide; dispose of it to free its memory. Never throws.
 */
export function compilePolicies(
  sources: readonly PolicySource[],
  { schema, without }: CompileOptions,
): CompileResult {
  const oversize = findOversize(sources)
  if (oversize) return { ok: false, problems: [oversize] }
  const read = sources.map(readSource)
  const policies = read.flatMap((file) => file.policies)
  const problems = read.flatMap((file) => file.problems)
  problems.push(...findDuplicates(policies))
  const [last] = policies.slice(maxPolicies)
  if (last)
    problems.push(
      problemAt(last.source, { start: last.start, message: tooMany('policies', maxPolicies) }),
    )
  if (problems.length === 0) problems.push(...validateAll(policies, schema))
  if (problems.length > 0) return { ok: false, problems: problems.slice(0, maxProblems) }
  const kept = policies.filter(({ id }) => id !== without)
  const engine = createEngine(kept, schema)
  return engine ? { ok: true, engine } : { ok: false, problems: [schemaProblem(schema)] }
}

const maxFiles = 256
const maxFileBytes = 256 * 1024
const maxTotalBytes = 1024 * 1024
const maxPolicies = 1000
const maxPolicyBytes = 16 * 1024
const maxProblems = 100
const maxReasonLength = 500
/** Cedar parses what it cannot evaluate: from 104 links of `&&` on, each evaluation would cost the engine its stack. */
const maxNesting = 32
const maxDepth = 64

interface Policy extends PolicyText {
  readonly source: PolicySource
  readonly id: string
  readonly reason?: string
}

interface ReadSource {
  readonly policies: readonly Policy[]
  readonly problems: readonly PolicyProblem[]
}

function findOversize(sources: readonly PolicySource[]): PolicyProblem | undefined {
  let total = 0
  for (const [index, source] of sources.entries()) {
    const bytes = Buffer.byteLength(source.text)
    total += bytes
    const message =
      index >= maxFiles
        ? tooMany('files', maxFiles)
        : bytes > maxFileBytes
          ? tooMany('bytes in a file', maxFileBytes)
          : total > maxTotalBytes
            ? tooMany('bytes in all files', maxTotalBytes)
            : undefined
    if (message !== undefined) return { file: source.file, line: 1, col: 1, message }
  }
  return undefined
}

function tooMany(what: string, most: number): string {
  return `Expected at most ${most} ${what}`
}

function readSource(source: PolicySource): ReadSource {
  const { text } = source
  const failed = (start: number, message: string): ReadSource => ({
    policies: [],
    problems: [problemAt(source, { start, message })],
  })
  if (!text.isWellFormed()) return failed(0, 'Expected Unicode text')
  const split = splitPolicies(text, { maxNesting })
  if (!split.ok) return failed(split.start, tooMany('brackets within each other', maxNesting))
  const long = split.policies.find((policy) => Buffer.byteLength(policy.text) > maxPolicyBytes)
  if (long) return failed(long.start, tooMany('bytes in a policy', maxPolicyBytes))
  const parts = callCedar(() => policySetTextToParts(text))
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
  const read = split.policies.map((policy) => readPolicy(policy, source))
  return {
    policies: read.filter((one) => 'id' in one),
    problems: read.filter((one) => 'message' in one),
  }
}

const engineFailed = 'Cedar failed on it: it may be too deep or too long'

function readPolicy(policy: PolicyText, source: PolicySource): Policy | PolicyProblem {
  const problem = (message: string, hint?: string): PolicyProblem =>
    problemAt(source, { start: policy.start, message, ...(hint !== undefined && { hint }) })
  const parsed = callCedar(() => policyToJson(policy.text))
  if (!parsed) return problem(engineFailed)
  if (parsed.type === 'failure') {
    const isTemplate = callCedar(() => templateToJson(policy.text))?.type === 'success'
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
  return { ...policy, source, id, ...(reason && { reason }) }
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

function findDuplicates(policies: readonly Policy[]): PolicyProblem[] {
  const byId = new Map<string, Policy>()
  const problems: PolicyProblem[] = []
  for (const policy of policies) {
    const first = byId.get(policy.id)
    byId.set(policy.id, first ?? policy)
    if (!first) continue
    const { file, line } = problemAt(first.source, { start: first.start, message: '' })
    const message = `The @id "${policy.id}" stands twice`
    problems.push(
      problemAt(policy.source, { start: policy.start, message, hint: `First at ${file}:${line}` }),
    )
  }
  return problems
}

/** Warnings too: an impossible policy, or an id of mixed scripts, is not what its author meant. */
function validateAll(policies: readonly Policy[], schema: string): PolicyProblem[] {
  const answer = callCedar(() =>
    validate({ schema, policies: { staticPolicies: textsById(policies) } }),
  )
  if (answer?.type !== 'success') return [schemaProblem(schema, answer?.errors)]
  const byId = new Map(policies.map((policy) => [policy.id, policy]))
  const byPlace = new Map<string, PolicyProblem>()
  for (const { policyId, error } of [...answer.validationErrors, ...answer.validationWarnings]) {
    const policy = byId.get(policyId)
    if (!policy) continue
    const problem = problemOf(policy.source, { error, within: policy })
    const place = `${problem.file}:${problem.line}:${problem.col}`
    const other = byPlace.get(place)
    // Cedar complains once per action, in no order: one for each place is enough, and always the same one.
    if (!other || problem.message < other.message) byPlace.set(place, problem)
  }
  return [...byPlace.values()].toSorted(
    (a, b) => a.file.localeCompare(b.file) || a.line - b.line || a.col - b.col,
  )
}

function textsById(policies: readonly Policy[]): Record<string, string> {
  return Object.fromEntries(policies.map(({ id, text }) => [id, text]))
}

function schemaProblem(schema: string, errors: readonly DetailedError[] = []): PolicyProblem {
  const source: PolicySource = { file: 'chaperone.cedarschema', text: schema }
  const [error] = errors
  return error
    ? problemOf(source, { error, within: { text: schema, start: 0 } })
    : problemAt(source, { start: 0, message: engineFailed })
}
