import type { CedarValueJson, EntityJson, TypeAndId } from '@cedar-policy/cedar-wasm/nodejs'
import type { CedarRequest } from './cedar-request.ts'
import { uidKey, uidOf, type Observations, type Observed } from './observe.ts'

/**
 * The request with nothing but what the policies see of it: the same answer, for a fraction of the work. It no longer fits
 * the schema, which demands all attributes. Ancestors stand as parents.
 */
export function project(request: CedarRequest, observations: Observations): CedarRequest {
  const entities = new Map(request.entities.map((entity) => [uidKey(uidOf(entity.uid)), entity]))
  const seen = findSeen(request, { entities, observations })
  const context = observations.get('context')
  return {
    principal: request.principal,
    action: request.action,
    resource: request.resource,
    context: context ? recordSeen(request.context, [context]) : {},
    entities: [...seen].flatMap(([key, places]) => {
      const entity = entities.get(key)
      return entity ? [entitySeen(entity, { places: [...places], entities })] : []
    }),
  }
}

/** Everything that an entity is in, by `uidKey()`. */
export function ancestorsOf(
  key: string,
  entities: ReadonlyMap<string, EntityJson>,
): ReadonlyMap<string, TypeAndId> {
  const found = new Map<string, TypeAndId>()
  const waiting = [key]
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const parent of entities.get(next)?.parents ?? []) {
      const uid = uidOf(parent)
      const parentKey = uidKey(uid)
      if (found.has(parentKey)) continue
      found.set(parentKey, uid)
      waiting.push(parentKey)
    }
  }
  return found
}

interface Searched {
  readonly entities: ReadonlyMap<string, EntityJson>
  readonly observations: Observations
}

/** By entity, all the places that lead to it: what is seen of it is what is seen of any of them. */
function findSeen(request: CedarRequest, { entities, observations }: Searched): Seen {
  const seen: Seen = new Map()
  const waiting: (readonly [string, Observed])[] = []
  const roots: Readonly<Record<string, string>> = {
    principal: uidKey(request.principal),
    action: uidKey(request.action),
    resource: uidKey(request.resource),
  }
  const lead = (value: CedarValueJson | undefined, place: Observed): void => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return
    if (isEntity(value)) waiting.push([uidKey(value.__entity), place])
    else if (!('__extn' in value)) leadAll(value, place.attributes)
  }
  const leadAll = (
    members: Readonly<Record<string, CedarValueJson>>,
    places: Observed['attributes'],
  ) => {
    for (const [name, place] of places) lead(own(members, name), place)
  }
  for (const [name, place] of observations) {
    if (name === 'context') leadAll(request.context, place.attributes)
    else waiting.push([roots[name] ?? name, place])
  }
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const [key, place] = next
    const places = seen.get(key) ?? new Set()
    if (places.has(place)) continue
    seen.set(key, places.add(place))
    const { attrs = {}, tags = {} } = entities.get(key) ?? {}
    leadAll(attrs, place.attributes)
    leadAll(tags, place.tags)
    for (const tag of place.anyTag ? Object.values(tags) : []) lead(tag, place.anyTag ?? place)
  }
  return seen
}

type Seen = Map<string, Set<Observed>>

function entitySeen(
  { uid, attrs, tags = {} }: EntityJson,
  {
    places,
    entities,
  }: { readonly places: readonly Observed[]; readonly entities: Searched['entities'] },
): EntityJson {
  const ancestors = places.some((place) => place.ancestors)
    ? [...ancestorsOf(uidKey(uidOf(uid)), entities).values()]
    : []
  return {
    uid,
    attrs: membersSeen(attrs, places),
    parents: ancestors,
    tags: tagsSeen(tags, places),
  }
}

type Members = Readonly<Record<string, CedarValueJson>>

function recordSeen(record: Members, places: readonly Observed[]): Record<string, CedarValueJson> {
  return places.some(({ value }) => value) ? record : membersSeen(record, places)
}

function membersSeen(
  members: Members,
  places: readonly Observed[],
): Record<string, CedarValueJson> {
  const names = new Set(places.flatMap(({ attributes }) => [...attributes.keys()]))
  const pairs = [...names].flatMap((name) => {
    const value = own(members, name)
    if (value === undefined) return []
    const inner = places.flatMap(({ attributes }) => attributes.get(name) ?? [])
    return [[name, valueSeen(value, inner)] as const]
  })
  return Object.fromEntries(pairs)
}

function tagsSeen(tags: Members, places: readonly Observed[]): Record<string, CedarValueJson> {
  const pairs = Object.entries(tags).flatMap(([name, value]) => {
    const inner = places.flatMap((place) => [place.tags.get(name) ?? [], place.anyTag ?? []].flat())
    return inner.length > 0 ? [[name, valueSeen(value, inner)] as const] : []
  })
  return Object.fromEntries(pairs)
}

function valueSeen(value: CedarValueJson, places: readonly Observed[]): CedarValueJson {
  if (places.some((place) => place.value)) return value
  // Its presence alone is seen. What does not suit a scalar fails on any scalar.
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return true
  if (isEntity(value)) return value
  return '__extn' in value ? true : membersSeen(value, places)
}

function isEntity(value: object): value is { readonly __entity: TypeAndId } {
  return '__entity' in value
}

function own(members: Members, name: string): CedarValueJson | undefined {
  return Object.hasOwn(members, name) ? members[name] : undefined
}
