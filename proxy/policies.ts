import { formatProblem } from '../config/problem.ts'
import type { Config } from '../config/schema.ts'
import type { EngineObserver, PolicyEngine } from '../policy/cedar.ts'
import { createEngine } from '../policy/cedar-engine.ts'
import { formatFinding, type PolicyFinding } from '../policy/findings.ts'
import type { Upstream } from '../policy/types.ts'
import { buildInWorker } from './build-in-worker.ts'
import {
  buildPolicies,
  type BuildPoliciesResult,
  type FileOfCases,
  type PolicyInputs,
} from './build-policies.ts'
import { readCaseFile } from './case-file.ts'
import { observedBy, observedOnly } from './observed-only.ts'
import { cedarSchema, loadPolicyFiles, listFiles } from './policy-files.ts'
import { createShadow, type Shadow } from './shadow.ts'

/** The policies of one configuration. */
export interface Policies extends Disposable {
  readonly engine: PolicyEngine
  readonly shadow: Shadow | undefined
  /** What is valid and probably a mistake: for the log. */
  readonly findings: readonly PolicyFinding[]
}

/** Policies cannot be taken up. The message has a line for each problem, as `file:line:col`. */
export class PoliciesError extends Error {
  override readonly name = 'PoliciesError'
  readonly code = 'ERR_POLICIES'
}

interface LoadOptions {
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly observer?: EngineObserver | undefined
}

/** Reads, compiles and tries the policies. Throws `PoliciesError`, `PolicyFileError`. */
export function loadPolicies(policy: Config['policy'], options: LoadOptions): Policies {
  return open(buildPolicies(readInputs(policy, options)), { policy, ...options })
}

/** The same, most of it in a thread of its own. Rejects with `PolicyWorkerError` too. */
export async function loadPoliciesInBackground(
  policy: Config['policy'],
  options: LoadOptions,
): Promise<Policies> {
  return open(await buildInWorker(readInputs(policy, options)), { policy, ...options })
}

/** The directories of an operator that policies and their cases are read from. */
export function policyDirectories({
  directory,
  shadow,
  tests,
}: Config['policy']): readonly string[] {
  return [directory, shadow, tests].filter((path) => path !== undefined)
}

/** Every file and directory that the policies of a configuration are made of. */
export function policyPaths({
  policy,
  upstreams,
}: Pick<Config, 'policy' | 'upstreams'>): readonly string[] {
  return [
    ...policyDirectories(policy),
    ...upstreams.flatMap(({ tools, openapi }) => [tools ?? [], openapi ?? []].flat()),
  ]
}

/** One line for each thing that an operator should know of policies just taken up. */
export function remarksOn(
  { findings }: Policies,
  config: Pick<Config, 'routes' | 'policy'>,
): readonly string[] {
  const observed = observedOnly(config).map(({ kind, name, untilMs }) => {
    const until = new Date(untilMs).toISOString()
    return `${kind} "${name}": what policies refuse is allowed until ${until} (${observedBy[kind]})`
  })
  return [...observed, ...findings.map(formatFinding)]
}

function readInputs(policy: Config['policy'], { upstreams }: LoadOptions): PolicyInputs {
  const { shadow, tests } = policy
  return {
    sources: loadPolicyFiles(policy),
    schema: cedarSchema(upstreams),
    cases: tests === undefined ? [] : listFiles(tests, { suffix: '.test.yaml' }).map(readCases),
    upstreams,
    ...(shadow !== undefined && { shadow: loadPolicyFiles({ directory: shadow }) }),
  }
}

function readCases(file: string): FileOfCases {
  const read = readCaseFile(file)
  if (read.ok) return { file, cases: read.cases }
  throw new PoliciesError(`Cases do not hold:\n${read.problems.map(formatProblem).join('\n')}`)
}

function open(
  built: BuildPoliciesResult,
  { policy: { maxShadowPerSecond }, observer }: LoadOptions & { readonly policy: Config['policy'] },
): Policies {
  if (!built.ok) throw new PoliciesError(built.message)
  const { set, cedar, shadow: tried, findings } = built
  const engine = createEngine(set, { ...(cedar && { cedar }), ...(observer && { observer }) })
  const shadow = tried && createShadow(tried, { maxPerSecond: maxShadowPerSecond })
  return {
    engine,
    shadow,
    findings,
    [Symbol.dispose]() {
      engine[Symbol.dispose]()
      shadow?.[Symbol.dispose]()
    },
  }
}
