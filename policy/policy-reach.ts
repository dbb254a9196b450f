import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'

/** What a policy's scope lets through. */
export interface Reach {
  readonly principal: Selected
  /** Those that a request can have, groups resolved. Sorted. */
  readonly actions: readonly string[]
  readonly resource: Selected
}

/** Everything, one entity, or an entity and what lies below it. By id: the type follows from the schema. */
export type Selected =
  | { readonly is: 'any' }
  | { readonly is: 'one'; readonly id: string }
  | { readonly is: 'within'; readonly id: string }

/** The actions of chaperone.cedarschema and the group of each. */
export const actionGroups: Readonly<Record<string, 'read' | 'write'>> = {
  'http.read': 'read',
  'http.write': 'write',
  'mcp.request': 'read',
  'mcp.response': 'write',
  'tools/call': 'write',
  'websocket.connect': 'write',
}

export function reachOf({ principal, action, resource }: PolicyJson): Reach {
  const named = idsOf(action)
  const actions = Object.entries(actionGroups).flatMap(([name, group]) =>
    named.length === 0 || named.includes(name) || named.includes(group) ? [name] : [],
  )
  return { principal: selectedBy(principal), actions, resource: selectedBy(resource) }
}

/** Whether everything that `inner` lets through, `outer` does too. */
export function coversReach(outer: Reach, inner: Reach): boolean {
  return (
    covers(outer.principal, inner.principal) &&
    covers(outer.resource, inner.resource) &&
    inner.actions.every((action) => outer.actions.includes(action))
  )
}

function covers(outer: Selected, inner: Selected): boolean {
  if (outer.is === 'any') return true
  if (inner.is === 'any') return false
  if (outer.is === 'one') return inner.is === 'one' && inner.id === outer.id
  // A group is a prefix of SPIFFE IDs that ends at a segment.
  return inner.id === outer.id || inner.id.startsWith(`${outer.id}/`)
}

type Constraint = PolicyJson['principal'] | PolicyJson['action'] | PolicyJson['resource']

function selectedBy(constraint: Constraint): Selected {
  const [id] = idsOf(constraint)
  if (id === undefined) return { is: 'any' }
  return constraint.op === '==' ? { is: 'one', id } : { is: 'within', id }
}

/** Every entity that the constraint names. */
function idsOf(constraint: Constraint): readonly string[] {
  const found: string[] = []
  JSON.stringify(constraint, (key, value: unknown) => {
    if (key === 'id' && typeof value === 'string') found.push(value)
    return value
  })
  return found
}
