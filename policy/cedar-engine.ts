import type { AuthorizationAnswer } from '@cedar-policy/cedar-wasm/nodejs'
import { severities, type Severity } from './annotations.ts'
import { CedarInstance, type CedarImage } from './cedar-instance.ts'
import type { CedarRequest } from './cedar-request.ts'
import { DecisionMemo } from './decision-memo.ts'
import { PolicySlices, type CompiledPolicy, type PolicySlice } from './policy-slices.ts'
import { project } from './project.ts'

export interface PolicyEngine extends Disposable {
  /** Sorted. */
  readonly policyIds: readonly string[]
  /** SHA-256 of schema and policies, hex. Does not depend on where the files lie, nor on their order. */
  readonly policySetSha: string
  /** False when it is closed, or when Cedar cannot be started: all is denied. */
  readonly healthy: boolean
  /** Goes with the engine: other policies, other answers. */
  readonly memo: DecisionMemo
  /** What happens in it, for whoever watches. */
  readonly observer: EngineObserver
  /** The policies that can have a say in the request. */
  sliceOf(request: CedarRequest): PolicySlice
  /**
   * Asks a slice, which must be the one of the request, and shows it only what it can see. Answers as `authorize()` does
   * for any request of the schema, and does not check that it is one. Never throws.
   */
  authorizeSlice(slice: PolicySlice, request: CedarRequest): CedarDecision
  /**
   * Asks all policies, with the whole request, checked against the schema: the plain way. Never throws. Denies when
   * anything went wrong: Cedar alone would skip a forbid that fails.
   */
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
  /** The highest `@severity` of the determining policies. */
  readonly severity?: Severity
  /** One of the determining policies permits with `@stepup` only. */
  readonly stepUp?: true
}

/** Told in the middle of a decision: it must be quick, and must not throw. */
export interface EngineObserver {
  /** By the memory of an earlier answer, or by Cedar. */
  answered(by: 'memo' | 'engine'): void
  /** A decision was made again in the plain way. Different: the engine has since stopped to take short cuts. */
  selfChecked(result: 'same' | 'different'): void
  /** The Cedar instance was worn out or broken, and another took its place. */
  replaced(): void
}

/** Everything that an engine is made of. Plain data: it crosses threads. */
export interface PolicySet {
  readonly policies: readonly CompiledPolicy[]
  readonly policySetSha: string
  /** Of an instance that holds the schema and all policies. */
  readonly image: CedarImage
}

/** What `PolicySet.image` holds, by its names in Cedar. */
export const imageNames = { policies: 'all', schema: 'schema' } as const

interface EngineOptions {
  readonly observer?: EngineObserver
  /** Begins with this instance, which holds what the image does. Default: one is made of the image. */
  readonly cedar?: CedarInstance
}

/** An engine that decides by these policies. */
export function createEngine(
  set: PolicySet,
  { observer = nobody, cedar: first }: EngineOptions = {},
): PolicyEngine {
  const { policies, policySetSha, image } = set
  const byId = new Map(policies.map((policy) => [policy.id, policy]))
  const slices = new PolicySlices(policies)
  const cedar = new ReplaceableCedar(image, { observer, first: first ?? start(image) })
  const read = (answer: AuthorizationAnswer | undefined): CedarDecision =>
    answer ? readAnswer(answer, byId) : failed('(engine)')
  return {
    policyIds: policies.map(({ id }) => id).toSorted(),
    policySetSha,
    memo: new DecisionMemo(),
    observer,
    get healthy() {
      return cedar.isAlive
    },
    sliceOf: (request) => slices.of(request),
    authorizeSlice: (slice, request) =>
      read(cedar.ask(project(request, slice.observations), slice)),
    authorize: (request) => read(cedar.ask(request)),
    [Symbol.dispose]: () => cedar.close(),
  }
}

const nobody: EngineObserver = { answered() {}, selfChecked() {}, replaced() {} }

/** A slice of more is not loaded by itself: that would hold up other requests for longer than asking all policies does. */
const maxSlicePolicies = 250
/** Slices loaded at once. The next takes the place of the oldest. */
const maxSlots = 64

/** An instance of Cedar, and another in its place when it is spent: the image makes it in a few milliseconds. */
class ReplaceableCedar {
  #image: CedarImage | undefined
  #instance: CedarInstance | undefined
  /** Which slice each slot of the instance holds. */
  #loaded: PolicySlice[] = []
  #slots = new Map<PolicySlice, number>()
  #nextSlot = 0
  readonly #observer: EngineObserver

  constructor(
    image: CedarImage,
    options: { readonly observer: EngineObserver; readonly first: CedarInstance | undefined },
  ) {
    this.#image = image
    this.#observer = options.observer
    this.#instance = options.first
  }

  get isAlive(): boolean {
    return this.#live() !== undefined
  }

  /** Without a slice: all policies and the schema. What breaks one instance is tried once with another. */
  ask(request: CedarRequest, slice?: PolicySlice): AuthorizationAnswer | undefined {
    if (slice?.policies.length === 0) return noPolicies
    const answer = this.#askOnce(request, slice)
    return answer ?? (this.#instance?.isSpent === true ? this.#askOnce(request, slice) : undefined)
  }

  close(): void {
    this.#image = undefined
    this.#instance = undefined
    this.#slots.clear()
  }

  #askOnce(request: CedarRequest, slice: PolicySlice | undefined): AuthorizationAnswer | undefined {
    const instance = this.#live()
    if (!instance) return undefined
    const policies = slice ? this.#load(instance, slice) : imageNames.policies
    if (policies === undefined) return undefined
    const checked = slice ? {} : { preparsedSchemaName: imageNames.schema, validateRequest: true }
    return instance.call((cedar) =>
      cedar.statefulIsAuthorized({ ...request, ...checked, preparsedPolicySetId: policies }),
    )
  }

  #live(): CedarInstance | undefined {
    if (!this.#image || this.#instance?.isSpent === false) return this.#instance
    this.#instance = start(this.#image)
    this.#slots.clear()
    this.#loaded = []
    if (this.#instance) this.#observer.replaced()
    return this.#instance
  }

  /** The name in Cedar of the policies that answer for the slice. */
  #load(instance: CedarInstance, slice: PolicySlice): string | undefined {
    const { policies } = slice
    // The others are not about this request: asked too, they stay silent.
    if (policies.length > maxSlicePolicies) return imageNames.policies
    const known = this.#slots.get(slice)
    if (known !== undefined) return `slice-${known}`
    const slot = this.#nextSlot
    const staticPolicies = Object.fromEntries(policies.map(({ id, text }) => [id, text]))
    const answer = instance.call((cedar) =>
      cedar.preparsePolicySet(`slice-${slot}`, { staticPolicies }),
    )
    if (answer?.type !== 'success') return undefined
    // A name that is used again frees what it held.
    const previous = this.#loaded[slot]
    if (previous) this.#slots.delete(previous)
    this.#loaded[slot] = slice
    this.#slots.set(slice, slot)
    this.#nextSlot = (slot + 1) % maxSlots
    return `slice-${slot}`
  }
}

function start(image: CedarImage): CedarInstance | undefined {
  try {
    return new CedarInstance(image)
  } catch {
    return undefined
  }
}

const noPolicies: AuthorizationAnswer = {
  type: 'success',
  response: { decision: 'deny', diagnostics: { reason: [], errors: [] } },
  warnings: [],
}

function readAnswer(
  answer: AuthorizationAnswer,
  byId: ReadonlyMap<string, CompiledPolicy>,
): CedarDecision {
  if (answer.type === 'failure') return failed('(request)')
  const { decision, diagnostics } = answer.response
  // Cedar gives them in random order.
  const policyIds = diagnostics.reason.toSorted()
  const errors = diagnostics.errors.map(({ policyId }) => policyId).toSorted()
  const determining = policyIds.flatMap((id) => byId.get(id) ?? [])
  const reason = determining.find((policy) => policy.reason !== undefined)?.reason
  const severity = severities.findLast((one) =>
    determining.some((policy) => policy.severity === one),
  )
  const sound = errors.length === 0 && policyIds.length > 0
  return {
    decision: decision === 'allow' && sound ? 'allow' : 'deny',
    policyIds,
    errors,
    ...(determining.some(({ stepUp }) => stepUp) && { stepUp: true }),
    ...(reason !== undefined && { reason }),
    ...(severity !== undefined && { severity }),
  }
}

function failed(what: '(engine)' | '(request)'): CedarDecision {
  return { decision: 'deny', policyIds: [], errors: [what] }
}
