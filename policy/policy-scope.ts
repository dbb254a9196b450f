import type { PolicyJson, TypeAndId } from '@cedar-policy/cedar-wasm/nodejs'
import { uidKey, uidOf } from './observe.ts'

/** Whom, what and where a policy is about. A request outside cannot meet its conditions, nor make it fail. */
export interface PolicyScope {
  readonly principal: ScopeTest
  readonly action: ScopeTest
  readonly resource: ScopeTest
}

/** All members present must hold. Entities stand as `uidKey()`. */
interface ScopeTest {
  readonly type?: string
  readonly equals?: string
  readonly inAny?: readonly string[]
}

/** An entity of a request, with everything that it is in. */
export interface ScopedEntity extends TypeAndId {
  readonly key: string
  readonly ancestors: ReadonlySet<string>
}

/** Undefined when it is the scope of a template. */
export function scopeOf({ principal, action, resource }: PolicyJson): PolicyScope | undefined {
  const tests = { principal: test(principal), action: test(action), resource: test(resource) }
  const { principal: who, action: what, resource: where } = tests
  return who && what && where && { principal: who, action: what, resource: where }
}

export function isInScope({ type, equals, inAny }: ScopeTest, entity: ScopedEntity): boolean {
  if (type !== undefined && type !== entity.type) return false
  if (equals !== undefined && equals !== entity.key) return false
  return !inAny || inAny.some((key) => key === entity.key || entity.ancestors.has(key))
}

function test(constraint: PolicyJson['principal'] | PolicyJson['action']): ScopeTest | undefined {
  if (constraint.op === 'All') return {}
  if (constraint.op === '==') {
    return 'entity' in constraint ? { equals: uidKey(uidOf(constraint.entity)) } : undefined
  }
  if (constraint.op === 'is') {
    const { entity_type: type, in: within } = constraint
    if (!within) return { type }
    return 'entity' in within ? { type, inAny: [uidKey(uidOf(within.entity))] } : undefined
  }
  if ('entities' in constraint)
    return { inAny: constraint.entities.map((uid) => uidKey(uidOf(uid))) }
  return 'entity' in constraint ? { inAny: [uidKey(uidOf(constraint.entity))] } : undefined
}
