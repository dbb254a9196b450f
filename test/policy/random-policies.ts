import type { CedarValueJson, EntityJson, TypeAndId } from '@cedar-policy/cedar-wasm/nodejs'
import type { CedarRequest } from '../../policy/cedar-request.ts'

/**
 * Random policies and requests without a schema, so that attributes, tags and entities may be absent and values of the
 * wrong type. Names say the type that a value usually has: `n0` a number, `e0` an entity.
 */
export class RandomCedar {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** mulberry32. */
  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  chance(probability: number): boolean {
    return this.#next() < probability
  }

  below(limit: number): number {
    return Math.floor(this.#next() * limit)
  }

  pick<T>(items: readonly [T, ...T[]]): T {
    return items[this.below(items.length)] ?? items[0]
  }

  /** The text of one policy. */
  policy(): string {
    const conditions = Array.from(
      { length: this.pick([0, 1, 1, 2]) },
      () => `${this.pick(['when', 'unless'])} { ${this.#bool(this.pick([1, 2, 3]))} }`,
    )
    const action = this.pick([
      'action',
      'action',
      'action == Action::"a0"',
      'action in Action::"g0"',
      'action in [Action::"a1", Action::"g1"]',
    ])
    const scope = `${this.#scope('principal')}, ${action}, ${this.#scope('resource')}`
    return `${this.pick(['permit', 'forbid'])} (${scope}) ${conditions.join(' ')};`
  }

  #scope(name: string): string {
    const forms = [
      name,
      name,
      `${name} == ${this.#literal()}`,
      `${name} in ${this.#literal()}`,
      `${name} is ${this.pick(types)}`,
      `${name} is ${this.pick(types)} in ${this.#literal()}`,
    ] as const
    return this.pick(forms)
  }

  #literal(): string {
    return `${this.pick(types)}::"${this.below(idsPerType)}"`
  }

  /** One in twelve is of another type than it should be. */
  #of(type: Type, depth: number): string {
    const actual = this.chance(1 / 12) ? this.pick(allTypes) : type
    switch (actual) {
      case 'bool':
        return this.#bool(depth)
      case 'number':
        return this.#number(depth)
      case 'text':
        return this.#text(depth)
      case 'entity':
        return this.#entity(depth)
      case 'record':
        return this.#record(depth)
      case 'texts':
        return this.#texts(depth)
      case 'entities':
        return this.#entities(depth)
      case 'extension':
        return this.#extension(depth)
    }
  }

  #bool(depth: number): string {
    if (depth <= 0) return this.pick(['true', 'false', this.#place('b', 0), this.#presence(0)])
    if (this.chance(0.15)) return this.#presence(depth)
    const of = (type: Type): string => this.#of(type, depth - 1)
    const forms: readonly [() => string, ...(() => string)[]] = [
      () => `(${of('bool')} && ${of('bool')})`,
      () => `(${of('bool')} || ${of('bool')})`,
      () => `!(${of('bool')})`,
      () => `(${of('number')} ${this.pick(['<', '<=', '>', '>='])} ${of('number')})`,
      () => {
        const type = this.pick(allTypes)
        return `(${of(type)} ${this.pick(['==', '!='])} ${of(type)})`
      },
      () => `(${of('text')} like "${this.pick(['x*', '*1', 'x1', '*'])}")`,
      () => `(${of('entity')} in ${this.chance(0.6) ? of('entity') : of('entities')})`,
      () => `(context.operation == Operation::${this.pick(typedNames)})`,
      () => `(${of('entity')} is ${this.pick(types)})`,
      () => `(${of('entity')} is ${this.pick(types)} in ${of('entity')})`,
      () => `(${of('texts')}).contains(${of('text')})`,
      () => `(${of('entities')}).${this.pick(['containsAll', 'containsAny'])}(${of('entities')})`,
      () => `(${of('texts')}).isEmpty()`,
      () => `(${of('extension')}).${this.pick(['isIpv4()', 'lessThan(decimal("1.5"))'])}`,
      () => `(${of('extension')} < ${of('extension')})`,
      () => `(if ${of('bool')} then ${of('bool')} else ${of('bool')})`,
      () => this.#place('b', depth),
    ]
    return this.pick(forms)()
  }

  #presence(depth: number): string {
    const simple = this.pick(['context', 'principal', 'resource'])
    const owner = depth <= 0 || this.chance(0.5) ? simple : this.#owner(depth - 1)
    return this.pick([
      `(${owner} has ${this.pick(allNames)})`,
      `(${owner} has ${this.pick(['r0', 'e0'])}.${this.pick(allNames)}.${this.pick(allNames)})`,
      `(principal).hasTag(${this.#tagKey(depth)})`,
      `(context.typed has ${this.pick(typedNames)})`,
      `(${this.#typed()} has ${this.pick(allNames)})`,
    ])
  }

  #number(depth: number): string {
    if (depth <= 0) return this.chance(0.5) ? `${this.below(4)}` : this.#place('n', 0)
    const of = (): string => this.#of('number', depth - 1)
    const forms: readonly [() => string, ...(() => string)[]] = [
      () => `${this.below(4)}`,
      () => this.#place('n', depth),
      () => `(${of()} ${this.pick(['+', '-', '*'])} ${of()})`,
      () => `(-(${of()}))`,
      () => `(${of()} + 9223372036854775806)`,
      () => this.#choice('number', depth),
    ]
    return this.pick(forms)()
  }

  #text(depth: number): string {
    const forms: readonly [() => string, ...(() => string)[]] = [
      () => `"x${this.below(3)}"`,
      () => this.#place('s', depth),
      () => this.#tag(depth),
      () => this.#choice('text', depth),
    ]
    return this.pick(forms)()
  }

  #entity(depth: number): string {
    const simple = ['principal', 'action', 'resource', this.#literal()] as const
    if (depth <= 0) return this.pick(simple)
    const forms: readonly [() => string, ...(() => string)[]] = [
      () => this.pick(simple),
      () => this.#place('e', depth),
      () => this.#tag(depth),
      () => this.#choice('entity', depth),
      () => `(${this.#members(depth)}).${this.pick(['m0', 'm1', 'm2'])}`,
    ]
    return this.pick(forms)()
  }

  #record(depth: number): string {
    if (depth <= 0) return this.pick(['context', this.#place('r', 0), this.#typed()])
    const forms: readonly [() => string, ...(() => string)[]] = [
      () => 'context',
      () => this.#place('r', depth),
      () => this.#typed(),
      () => this.#members(depth),
      () => this.#choice('record', depth),
    ]
    return this.pick(forms)()
  }

  /** What a tool or an operation is called with. */
  #typed(): string {
    return `(context.typed[${this.pick(typedNames)}])`
  }

  #members(depth: number): string {
    const of = (type: Type): string => this.#of(type, depth - 1)
    return `{m0: ${of('entity')}, m1: ${of(this.pick(allTypes))}, n0: ${of('number')}}`
  }

  #texts(depth: number): string {
    if (depth <= 0 || this.chance(0.5)) return this.#place('w', depth)
    return `[${this.#of('text', depth - 1)}, ${this.#of('text', depth - 1)}]`
  }

  #entities(depth: number): string {
    if (depth <= 0 || this.chance(0.4)) return this.#place('g', depth)
    return `[${this.#of('entity', depth - 1)}, ${this.#of('entity', depth - 1)}]`
  }

  #extension(depth: number): string {
    return this.pick([
      'ip("10.0.0.1")',
      'decimal("1.0")',
      'datetime("2026-01-01")',
      'duration("1h")',
      this.#place('x', depth),
      `ip(${this.#of('text', depth - 1)})`,
    ])
  }

  #choice(type: Type, depth: number): string {
    if (depth <= 0) return this.#of(type === 'bool' ? 'bool' : 'entity', 0)
    const of = (wanted: Type): string => this.#of(wanted, depth - 1)
    return `(if ${of('bool')} then ${of(type)} else ${of(type)})`
  }

  /** Something that has attributes. */
  #owner(depth: number): string {
    return this.chance(0.4) ? this.#of('record', depth) : this.#of('entity', depth)
  }

  #place(kind: string, depth: number): string {
    const owner =
      depth <= 0
        ? this.pick(['context', 'principal', 'resource', this.#typed()])
        : this.#owner(depth - 1)
    return `(${owner}).${kind}${'nse'.includes(kind) ? this.below(2) : 0}`
  }

  #tag(depth: number): string {
    if (depth <= 0) return `principal.getTag("t0")`
    return `(${this.#of('entity', depth - 1)}).getTag(${this.#tagKey(depth)})`
  }

  #tagKey(depth: number): string {
    if (this.chance(0.6)) return `"t${this.below(3)}"`
    return this.chance(0.6) ? '(context.s0)' : this.#of('text', depth - 2)
  }

  request(): CedarRequest {
    const entities = allUids.flatMap((uid, index) =>
      this.chance(0.12) ? [] : [this.#entityJson(uid, index)],
    )
    return {
      principal: this.#uid(),
      action: { type: 'Action', id: this.pick(['a0', 'a1', 'a2']) },
      resource: this.#uid(),
      context: { ...this.#attributes(1), ...this.#asked() },
      entities,
    }
  }

  /** The operation, and its typed arguments: of one of them, absent, or of another type than they should be. */
  #asked(): Record<string, CedarValueJson> {
    const name = JSON.parse(this.pick(typedNames))
    const typed = this.chance(0.9) ? { [name]: this.#value('r0', 2) } : this.#value('s0', 0)
    return {
      ...(this.chance(0.9) && { operation: { __entity: { type: 'Operation', id: name } } }),
      ...(this.chance(0.9) && { typed }),
    }
  }

  #uid(): TypeAndId {
    return { type: this.pick(types), id: `${this.below(idsPerType)}` }
  }

  /** Its parents come later in the list: no cycles. */
  #entityJson(uid: TypeAndId, index: number): EntityJson {
    const isAction = uid.type === 'Action'
    const later = allUids.slice(index + 1).filter(({ type }) => (type === 'Action') === isAction)
    return {
      uid,
      attrs: isAction ? {} : this.#attributes(1),
      parents: later.filter(() => this.chance(0.2)),
      tags: isAction ? {} : this.#tags(),
    }
  }

  #attributes(depth: number): Record<string, CedarValueJson> {
    const names = allNames.filter(() => this.chance(0.4))
    return Object.fromEntries(names.map((name) => [name, this.#value(name, depth)]))
  }

  #tags(): Record<string, CedarValueJson> {
    const names = ['t0', 't1', 't2', 'x0', 'x1'].filter(() => this.chance(0.4))
    return Object.fromEntries(
      names.map((name) => [name, this.#value(this.pick(['s0', 'e0', 'r0']), 1)]),
    )
  }

  #value(name: string, depth: number): CedarValueJson {
    const kind = this.chance(0.06) ? this.pick(kinds) : name.charAt(0)
    switch (kind) {
      case 'b':
        return this.chance(0.5)
      case 'n':
        return this.below(4)
      case 's':
        return `x${this.below(3)}`
      case 'e':
        return { __entity: this.#uid() }
      case 'r':
        return depth > 0 && this.chance(0.7) ? this.#attributes(depth - 1) : {}
      case 'w':
        return [`x${this.below(3)}`, 'x1'].slice(this.below(3))
      case 'g':
        return [{ __entity: this.#uid() }, { __entity: this.#uid() }].slice(this.below(3))
      default:
        return this.pick([
          { __extn: { fn: 'ip', arg: `10.0.0.${this.below(3)}` } },
          { __extn: { fn: 'decimal', arg: `${this.below(3)}.0` } },
          { __extn: { fn: 'datetime', arg: `2026-01-0${1 + this.below(3)}` } },
        ])
    }
  }
}

const types = ['User', 'Group', 'Thing'] as const
const idsPerType = 2
const typedNames = ['"u/a"', '"u/b"'] as const
const allUids: readonly TypeAndId[] = [
  ...types.flatMap((type) => Array.from({ length: idsPerType }, (_, n) => ({ type, id: `${n}` }))),
  ...['a0', 'a1', 'a2', 'g0', 'g1'].map((id) => ({ type: 'Action', id })),
]
const kinds = ['b', 'n', 's', 'e', 'r', 'w', 'g', 'x'] as const
type Names = readonly [string, ...string[]]
const allNames: Names = ['b0', 'n0', 'n1', 's0', 's1', 'e0', 'e1', 'r0', 'w0', 'g0', 'x0']
const allTypes = [
  'bool',
  'number',
  'text',
  'entity',
  'record',
  'texts',
  'entities',
  'extension',
] as const
type Type = (typeof allTypes)[number]
