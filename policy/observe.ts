import type { EntityUidJson, PolicyJson, TypeAndId } from '@cedar-policy/cedar-wasm/nodejs'

/**
 * What a policy can see of one place: an attribute, a tag, a variable or an entity that it names. That the place is listed
 * says that its presence is seen; the members say what more is.
 */
export interface Observed {
  /** Its value, whole. An entity's value is its uid, which is always seen. */
  value: boolean
  /** Which entities it is in. */
  ancestors: boolean
  readonly attributes: Map<string, Observed>
  readonly tags: Map<string, Observed>
  /** A tag whose name the policy computes: it may be any. */
  anyTag?: Observed
}

/** By variable (`principal`, `action`, `resource`, `context`), or by the `uidKey()` of an entity that the policy names. */
export type Observations = ReadonlyMap<string, Observed>

/**
 * Everything that the answer of a policy can depend on. Whatever is evaluated is seen, whether or not its value is used:
 * what is absent fails the policy. Undefined when it holds an expression that is not known.
 */
export function observe(policy: PolicyJson): Observations | undefined {
  const observer = new Observer()
  for (const name of ['principal', 'action', 'resource'] as const) {
    const scope = policy[name]
    const isIn = scope.op === 'in' || (scope.op === 'is' && scope.in !== undefined)
    if (isIn) observer.root(name).ancestors = true
  }
  for (const { body } of policy.conditions) observer.use(body)
  return observer.isComplete ? observer.roots : undefined
}

/** All that any of them sees. */
export function mergeObservations(all: readonly Observations[]): Observations {
  const merged = new Map<string, Observed>()
  for (const one of all) mergeChildren(merged, one)
  return merged
}

export function uidKey({ type, id }: TypeAndId): string {
  return `${type}::${JSON.stringify(id)}`
}

/** Cedar writes a uid in two ways. */
export function uidOf(uid: EntityUidJson): TypeAndId {
  return '__entity' in uid ? uid.__entity : uid
}

/** What an expression may stand for: places of the request, and the members of a record that the policy makes. */
interface Denoted {
  readonly places: readonly Observed[]
  readonly members: ReadonlyMap<string, Denoted>
}

const nothing: Denoted = { places: [], members: new Map() }

/** Operators that take the values of `left` and `right`, and give a value that is no place. */
const binary: ReadonlySet<string> = new Set(
  '== != < <= > >= && || + - * contains containsAll containsAny'.split(' '),
)
const unary: ReadonlySet<string> = new Set(['!', 'neg', 'isEmpty'])

class Observer {
  readonly roots = new Map<string, Observed>()
  isComplete = true

  root(name: string): Observed {
    return child(this.roots, name)
  }

  /** Its value counts. */
  use(expression: unknown): Denoted {
    const denoted = this.denote(expression)
    markValue(denoted)
    return denoted
  }

  denote(expression: unknown): Denoted {
    const [[operator, body], ...others] = entriesOf(expression)
    if (operator === undefined || others.length > 0) return this.#unknown()
    if (binary.has(operator)) return this.#useAll([member(body, 'left'), member(body, 'right')])
    if (unary.has(operator)) return this.#useAll([member(body, 'arg')])
    // A set cannot be taken apart again: what it holds is seen by value alone. So are the arguments of a function.
    if (Array.isArray(body) && operator !== 'Value') return this.#useAll(body)
    return this.#denoteOperator(operator, body)
  }

  #denoteOperator(operator: string, body: unknown): Denoted {
    switch (operator) {
      case 'Value':
        return this.#literal(body)
      case 'Var':
        return typeof body === 'string' ? at(this.root(body)) : this.#unknown()
      case '.':
        return this.#attribute(body)
      case 'getTag':
        return this.#tag(body)
      // The presence alone, which the place being listed says.
      case 'has':
        this.#attribute(body)
        return nothing
      case 'hasTag':
        this.#tag(body)
        return nothing
      case 'in':
        return this.#isIn(body, member(body, 'right'))
      case 'is':
        return this.#isIn(body, member(body, 'in'))
      case 'like':
        return this.#useAll([member(body, 'left')])
      case 'if-then-else':
        this.use(member(body, 'if'))
        return either(this.denote(member(body, 'then')), this.denote(member(body, 'else')))
      case 'Record':
        return this.#record(body)
      default:
        return this.#unknown()
    }
  }

  #unknown(): Denoted {
    this.isComplete = false
    return nothing
  }

  #useAll(expressions: readonly unknown[]): Denoted {
    for (const expression of expressions) this.use(expression)
    return nothing
  }

  #literal(value: unknown): Denoted {
    const entity = member(value, '__entity')
    const type = member(entity, 'type')
    const id = member(entity, 'id')
    if (typeof type === 'string' && typeof id === 'string')
      return at(this.root(uidKey({ type, id })))
    const isPlain = typeof value !== 'object' || value === null || '__extn' in value
    return isPlain || Array.isArray(value) ? nothing : this.#unknown()
  }

  /** `has` may go several steps: each is seen. */
  #attribute(body: unknown): Denoted {
    let denoted = this.denote(member(body, 'left'))
    for (const name of [member(body, 'attr')].flat()) {
      if (typeof name !== 'string') return this.#unknown()
      const own = denoted.members.get(name) ?? nothing
      const children = denoted.places.map(({ attributes }) => child(attributes, name))
      denoted = { places: [...children, ...own.places], members: own.members }
    }
    return denoted
  }

  #tag(body: unknown): Denoted {
    const { places } = this.denote(member(body, 'left'))
    const key = member(body, 'right')
    const name = member(key, 'Value')
    if (typeof name === 'string')
      return { ...nothing, places: places.map(({ tags }) => child(tags, name)) }
    this.use(key)
    return { ...nothing, places: places.map((place) => (place.anyTag ??= unobserved())) }
  }

  #isIn(body: unknown, group: unknown): Denoted {
    const { places } = this.use(member(body, 'left'))
    if (group === undefined) return nothing
    for (const place of places) place.ancestors = true
    return this.#useAll([group])
  }

  /** Each member is evaluated, also one that nobody reads: if it is absent, the policy fails. */
  #record(body: unknown): Denoted {
    const members = new Map<string, Denoted>()
    for (const [name, expression] of entriesOf(body)) {
      if (name !== undefined) members.set(name, this.use(expression))
    }
    return { places: [], members }
  }
}

function at(place: Observed): Denoted {
  return { ...nothing, places: [place] }
}

function either(one: Denoted, other: Denoted): Denoted {
  const members = new Map(one.members)
  for (const [name, denoted] of other.members)
    members.set(name, either(members.get(name) ?? nothing, denoted))
  return { places: [...one.places, ...other.places], members }
}

function markValue({ places, members }: Denoted): void {
  for (const place of places) place.value = true
  for (const denoted of members.values()) markValue(denoted)
}

function unobserved(): Observed {
  return { value: false, ancestors: false, attributes: new Map(), tags: new Map() }
}

function child(children: Map<string, Observed>, name: string): Observed {
  const known = children.get(name) ?? unobserved()
  children.set(name, known)
  return known
}

function mergeChildren(into: Map<string, Observed>, from: ReadonlyMap<string, Observed>): void {
  for (const [name, seen] of from) merge(child(into, name), seen)
}

function merge(into: Observed, from: Observed): void {
  into.value ||= from.value
  into.ancestors ||= from.ancestors
  mergeChildren(into.attributes, from.attributes)
  mergeChildren(into.tags, from.tags)
  if (from.anyTag) merge((into.anyTag ??= unobserved()), from.anyTag)
}

function member(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
  return Reflect.get(value, name)
}

/** Never empty: without a member, the first has no name. */
function entriesOf(
  value: unknown,
): [[string | undefined, unknown], ...(readonly [string, unknown])[]] {
  const [first, ...others] =
    typeof value === 'object' && value !== null ? Object.entries(value) : []
  return [first ?? [undefined, undefined], ...others]
}
