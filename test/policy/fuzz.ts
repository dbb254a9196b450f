import type { AuthorizationAnswer, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'
import { CedarInstance } from '../../policy/cedar-instance.ts'
import type { CedarRequest } from '../../policy/cedar-request.ts'
import { observe, type Observations, type Observed } from '../../policy/observe.ts'
import { scopeOf, type PolicyScope } from '../../policy/policy-scope.ts'
import { PolicySlices, type CompiledPolicy, type PolicySlice } from '../../policy/policy-slices.ts'
import { project } from '../../policy/project.ts'
import { RandomCedar } from './random-policies.ts'

const policiesPerSet = 6
const requestsPerSet = 100

/** An analysis that overlooks something: the fuzz must find it. */
export interface Mutant {
  readonly observed?: (place: Observed) => Observed
  readonly root?: (name: string) => boolean
  readonly scope?: (scope: PolicyScope) => PolicyScope
}

interface FuzzOptions {
  readonly pairs: number
  readonly seed: number
  readonly mutant?: Mutant
}

export interface Tally {
  pairs: number
  allowed: number
  failing: number
  /** Asked of fewer policies than there are. */
  sliced: number
  remembered: number
  difference?: object
}

/** Slices, projections and remembered answers against plain Cedar on all policies and the whole request. */
export function fuzz({ pairs: wanted, seed: from, mutant = {} }: FuzzOptions): Tally {
  const random = new RandomCedar(from)
  const tally: Tally = { pairs: 0, allowed: 0, failing: 0, sliced: 0, remembered: 0 }
  let cedar = new CedarInstance()
  for (let asked = 0; asked < wanted && !tally.difference; asked += requestsPerSet) {
    if (cedar.isSpent) cedar = new CedarInstance()
    const policies = Array.from({ length: policiesPerSet }, (_, n) =>
      compile(random.policy(), { id: `p${n}`, cedar, mutant }),
    )
    const requests = Array.from({ length: requestsPerSet }, () => random.request())
    // Each twice: the second time with another attribute, so that remembered answers are asked for.
    const twins = requests.map((request, n) =>
      n % 2 === 1 ? twinOf(requests[n - 1] ?? request) : request,
    )
    compareAll(policies, { requests: twins, cedar, tally })
  }
  return tally
}

/** The same request but for what few policies look at. */
function twinOf(request: CedarRequest): CedarRequest {
  return { ...request, context: { ...request.context, n1: 3, other: 'x' } }
}

interface Comparison {
  readonly requests: readonly CedarRequest[]
  readonly cedar: CedarInstance
  readonly tally: Tally
}

function compareAll(
  policies: readonly CompiledPolicy[],
  { requests, cedar, tally }: Comparison,
): void {
  const slices = new PolicySlices(policies)
  const loaded = new Map<PolicySlice, string>()
  const load = (slice: PolicySlice): string => {
    const name = loaded.get(slice) ?? `slice-${loaded.size}`
    if (!loaded.has(slice)) preparse(cedar, { name, policies: slice.policies })
    loaded.set(slice, name)
    return name
  }
  const remembered = new Map<string, string>()
  preparse(cedar, { name: 'all', policies })
  for (const request of requests) {
    const plain = cedar.call(({ statefulIsAuthorized }) =>
      statefulIsAuthorized({ ...request, preparsedPolicySetId: 'all' }),
    )
    if (plain?.type !== 'success') continue
    const slice = slices.of(request)
    const name = load(slice)
    const seen = project(request, slice.observations)
    const key = `${name} ${JSON.stringify(seen)}`
    const known = remembered.get(key)
    const short =
      known ??
      textOf(
        cedar.call(({ statefulIsAuthorized }) =>
          statefulIsAuthorized({ ...seen, preparsedPolicySetId: name }),
        ),
      )
    remembered.set(key, short)
    tally.pairs += 1
    tally.allowed += Number(plain.response.decision === 'allow')
    tally.failing += Number(plain.response.diagnostics.errors.length > 0)
    tally.sliced += Number(slice.policies.length < policies.length)
    tally.remembered += Number(known !== undefined)
    if (short === textOf(plain)) continue
    tally.difference = {
      short,
      plain: textOf(plain),
      request,
      policies: policies.map(({ text }) => text),
    }
    return
  }
}

function textOf(answer: AuthorizationAnswer | undefined): string {
  if (answer?.type !== 'success') return `failed ${JSON.stringify(answer)}`
  const { decision, diagnostics } = answer.response
  const failing = diagnostics.errors.map(({ policyId }) => policyId)
  return `${decision} by ${diagnostics.reason.toSorted().join()} failing ${failing.toSorted().join()}`
}

function preparse(
  cedar: CedarInstance,
  { name, policies }: { readonly name: string; readonly policies: readonly CompiledPolicy[] },
): void {
  const staticPolicies = Object.fromEntries(policies.map(({ id, text }) => [id, text]))
  const answer = cedar.call(({ preparsePolicySet }) => preparsePolicySet(name, { staticPolicies }))
  if (answer?.type !== 'success') throw new Error(JSON.stringify(answer))
}

export function parse(text: string, cedar: CedarInstance = new CedarInstance()): PolicyJson {
  const answer = cedar.call(({ policyToJson }) => policyToJson(text))
  if (answer?.type !== 'success') throw new Error(`${text}: ${JSON.stringify(answer)}`)
  return answer.json
}

function compile(
  text: string,
  {
    id,
    cedar,
    mutant,
  }: { readonly id: string; readonly cedar: CedarInstance; readonly mutant: Mutant },
): CompiledPolicy {
  const json = parse(text, cedar)
  const scope = scopeOf(json)
  const observations = observe(json)
  if (!scope || !observations) throw new Error(`not understood: ${text}`)
  const { root = () => true, observed = (place: Observed) => place } = mutant
  const roots = [...observations].filter(([name]) => root(name))
  return {
    id,
    text,
    stepUp: false,
    scope: mutant.scope?.(scope) ?? scope,
    observations: mapPlaces(new Map(roots), observed),
  }
}

function mapPlaces(
  places: Observations,
  change: (place: Observed) => Observed,
): Map<string, Observed> {
  const mapped = [...places].map(([name, place]) => [name, mapPlace(place, change)] as const)
  return new Map(mapped)
}

function mapPlace(place: Observed, change: (place: Observed) => Observed): Observed {
  const { anyTag } = place
  const inner = {
    ...place,
    attributes: mapPlaces(place.attributes, change),
    tags: mapPlaces(place.tags, change),
    ...(anyTag && { anyTag: mapPlace(anyTag, change) }),
  }
  return change(inner)
}
