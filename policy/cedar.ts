import type { DetailedError } from '@cedar-policy/cedar-wasm/nodejs'
import { createHash } from 'node:crypto'
import { createEngine, imageNames, type PolicyEngine, type PolicySet } from './cedar-engine.ts'
import { CedarInstance } from './cedar-instance.ts'
import { problemAt, problemOf, type PolicyProblem, type PolicySource } from './cedar-source.ts'
import type { CompiledPolicy } from './policy-slices.ts'
import {
  engineFailed,
  readPolicies,
  tooMany,
  type CallCedar,
  type Policy,
} from './read-policies.ts'
import { problemsOfValidation } from './validation-problems.ts'

export type { CedarDecision, EngineObserver, PolicyEngine, PolicySet } from './cedar-engine.ts'
export type { PolicyProblem, PolicySource } from './cedar-source.ts'
export type { Policy } from './read-policies.ts'

interface ReadSet {
  /** All of the files, those in shadow too, in the order of the files. */
  readonly policies: readonly Policy[]
}

export type CompileResult =
  | ({ readonly ok: true; readonly engine: PolicyEngine } & ReadSet)
  | { readonly ok: false; readonly problems: readonly PolicyProblem[] }

export type BuildPolicySetResult =
  | ({
      readonly ok: true
      readonly set: PolicySet
      /** The instance that the image is of: an engine of this thread can begin with it. */
      readonly cedar: CedarInstance
    } & ReadSet)
  | { readonly ok: false; readonly problems: readonly PolicyProblem[] }

/** The most files of a set, the shipped ones and the presets among them. */
export const maxPolicyFiles = 256
export const maxPolicyFileBytes = 256 * 1024

export interface CompileOptions {
  readonly schema: string
  /** Leaves this policy out: a test that still passes then does not hold it. */
  readonly without?: string
  /** Takes in the policies with `@mode("shadow")`, as though they were enforced. Default false. */
  readonly withShadow?: boolean
}

/**
 * Compiles policy files against the schema, strictly: a policy that might never apply, or whose attribute nobody sets,
 * is a problem. The engine is ready to decide. Never throws.
 */
export function compilePolicies(
  sources: readonly PolicySource[],
  options: CompileOptions,
): CompileResult {
  const built = buildPolicySet(sources, options)
  if (!built.ok) return built
  return { ok: true, engine: createEngine(built.set, built), policies: built.policies }
}

/** As `compilePolicies()`, but for the engine: the set is plain data, and can be made in another thread. Never throws. */
export function buildPolicySet(
  sources: readonly PolicySource[],
  { schema, without, withShadow = false }: CompileOptions,
): BuildPolicySetResult {
  const oversize = findOversize(sources)
  if (oversize) return { ok: false, problems: [oversize] }
  const callCedar = throwAwayCedar()
  const read = sources.map((source) => readPolicies(source, callCedar))
  const policies = withoutRepeated(read.flatMap((file) => file.policies))
  const problems = read.flatMap((file) => file.problems)
  problems.push(...findDuplicates(policies))
  const [last] = policies.slice(maxPolicies)
  if (last)
    problems.push(
      problemAt(last.source, { start: last.start, message: tooMany('policies', maxPolicies) }),
    )
  if (problems.length === 0) problems.push(...validateAll(policies, { schema, callCedar }))
  if (problems.length > 0) return { ok: false, problems: problems.slice(0, maxProblems) }
  const kept = policies.filter(
    ({ id, mode }) => id !== without && (withShadow || mode === 'enforce'),
  )
  const cedar = loadAll(kept, schema)
  const image = cedar?.image()
  if (!cedar || !image) return { ok: false, problems: [schemaProblem(schema)] }
  const set = { policies: kept.map(withoutSource), policySetSha: shaOf(kept, schema), image }
  return { ok: true, set, cedar, policies }
}

const maxTotalBytes = 4 * 1024 * 1024
const maxPolicies = 5000
const maxProblems = 100

/** What policies are tried in is used for nothing else: some parse, and break the instance that they are tried in. */
function throwAwayCedar(): CallCedar {
  let cedar = new CedarInstance()
  return (ask) => {
    if (cedar.isSpent) cedar = new CedarInstance()
    return cedar.call(ask)
  }
}

function findOversize(sources: readonly PolicySource[]): PolicyProblem | undefined {
  let total = 0
  for (const [index, source] of sources.entries()) {
    const bytes = Buffer.byteLength(source.text)
    total += bytes
    const message =
      index >= maxPolicyFiles
        ? tooMany('files', maxPolicyFiles)
        : bytes > maxPolicyFileBytes
          ? tooMany('bytes in a file', maxPolicyFileBytes)
          : total > maxTotalBytes
            ? tooMany('bytes in all files', maxTotalBytes)
            : undefined
    if (message !== undefined) return { file: source.file, line: 1, col: 1, message }
  }
  return undefined
}

/**
 * What the product itself puts into a set may stand in a file too, word for word: `policy show --cedar` prints it. The
 * first of the two is the shipped one.
 */
function withoutRepeated(policies: readonly Policy[]): readonly Policy[] {
  const known = new Map<string, string>()
  return policies.filter(({ id, text }) => {
    const isRepeated = /^(?:system|preset)\//.test(id) && known.get(id) === text
    known.set(id, text)
    return !isRepeated
  })
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
      problemAt(policy.source, {
        start: policy.start,
        message,
        hint: `First at ${file}:${line}: give one of them another id`,
      }),
    )
  }
  return problems
}

/** Warnings too: an impossible policy, or an id of mixed scripts, is not what its author meant. */
function validateAll(
  policies: readonly Policy[],
  { schema, callCedar }: { readonly schema: string; readonly callCedar: CallCedar },
): PolicyProblem[] {
  const staticPolicies = textsById(policies)
  const answer = callCedar((cedar) => cedar.validate({ schema, policies: { staticPolicies } }))
  if (answer?.type !== 'success') return [schemaProblem(schema, answer?.errors)]
  return problemsOfValidation(policies, [...answer.validationErrors, ...answer.validationWarnings])
}

function textsById(policies: readonly Policy[]): Record<string, string> {
  return Object.fromEntries(policies.map(({ id, text }) => [id, text]))
}

/** An instance that holds the schema and the policies. */
function loadAll(policies: readonly Policy[], schema: string): CedarInstance | undefined {
  const cedar = new CedarInstance()
  const staticPolicies = textsById(policies)
  cedar.call(({ preparseSchema }) => preparseSchema(imageNames.schema, schema))
  const loaded = cedar.call(({ preparsePolicySet }) =>
    preparsePolicySet(imageNames.policies, { staticPolicies }),
  )
  return loaded?.type === 'success' ? cedar : undefined
}

/** Its file is not kept: the set may be large. */
function withoutSource(policy: Policy): CompiledPolicy {
  const { id, text, reason, severity, stepUp, scope, observations } = policy
  return {
    id,
    text,
    stepUp,
    scope,
    observations,
    ...(reason !== undefined && { reason }),
    ...(severity !== undefined && { severity }),
  }
}

function shaOf(policies: readonly Policy[], schema: string): string {
  const digests = policies.map(({ id, text }) => sha256(`${id}\n${text}`)).toSorted()
  return sha256([sha256(schema), ...digests].join('\n'))
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function schemaProblem(schema: string, errors: readonly DetailedError[] = []): PolicyProblem {
  const source: PolicySource = { file: 'chaperone.cedarschema', text: schema }
  const [error] = errors
  return error
    ? problemOf(source, { error, within: { text: schema, start: 0 } })
    : problemAt(source, { start: 0, message: engineFailed })
}
