import type { EntityJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Annotations } from './annotations.ts'
import type { CedarRequest } from './cedar-request.ts'
import { mergeObservations, uidKey, uidOf, type Observations } from './observe.ts'
import { isInScope, type PolicyScope, type ScopedEntity } from './policy-scope.ts'
import { ancestorsOf } from './project.ts'

/** A policy that has been validated, and what its text was found to depend on. Plain data: it crosses threads. */
export interface CompiledPolicy extends Omit<Annotations, 'mode'> {
  readonly text: string
  readonly scope: PolicyScope
  readonly observations: Observations
}

/** The policies of a set that can have a say in a request: all others are about somebody or something else. */
export interface PolicySlice {
  readonly policies: readonly CompiledPolicy[]
  /** All that these see of a request. */
  readonly observations: Observations
}

/** Finds slices, each object once as long as it is remembered: what is loaded for a slice is found by its identity. */
export class PolicySlices {
  readonly #policies: readonly CompiledPolicy[]
  readonly #byScope = new Map<string, PolicySlice>()
  readonly #byPolicies = new Map<string, PolicySlice>()

  constructor(policies: readonly CompiledPolicy[]) {
    this.#policies = policies
  }

  of(request: CedarRequest): PolicySlice {
    const entities = new Map(request.entities.map((entity) => [uidKey(uidOf(entity.uid)), entity]))
    const scoped = {
      principal: scopedEntity(request.principal, entities),
      action: scopedEntity(request.action, entities),
      resource: scopedEntity(request.resource, entities),
    }
    const key = Object.values(scoped).map(keyOf).join('\n')
    const known = this.#byScope.get(key)
    if (known) return known
    const slice = this.#find(scoped)
    remember(this.#byScope, { key, value: slice })
    return slice
  }

  #find({ principal, action, resource }: Readonly<Record<keyof PolicyScope, ScopedEntity>>) {
    const indexes: number[] = []
    for (const [index, { scope }] of this.#policies.entries()) {
      const isIn =
        isInScope(scope.action, action) &&
        isInScope(scope.resource, resource) &&
        isInScope(scope.principal, principal)
      if (isIn) indexes.push(index)
    }
    const key = indexes.join()
    const known = this.#byPolicies.get(key)
    if (known) return known
    const policies = indexes.flatMap((index) => this.#policies[index] ?? [])
    const observations = mergeObservations(policies.map((policy) => policy.observations))
    const slice: PolicySlice = { policies, observations }
    remember(this.#byPolicies, { key, value: slice })
    return slice
  }
}

/** A sidecar serves few agents, upstreams and actions. Past this, all are found anew. */
const maxRemembered = 1024

function remember<T>(
  slices: Map<string, T>,
  { key, value }: { readonly key: string; readonly value: T },
): void {
  if (slices.size >= maxRemembered) slices.clear()
  slices.set(key, value)
}

function scopedEntity(
  { type, id }: { readonly type: string; readonly id: string },
  entities: ReadonlyMap<string, EntityJson>,
): ScopedEntity {
  const key = uidKey({ type, id })
  return { type, id, key, ancestors: new Set(ancestorsOf(key, entities).keys()) }
}

/** Quoted ids hold no line end of their own: no two entities have one key. */
function keyOf({ key, ancestors }: ScopedEntity): string {
  return [key, ...ancestors].join('\t')
}
