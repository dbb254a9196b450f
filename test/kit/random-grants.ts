import * as fc from 'fast-check'
import type { ArgumentValue, Destination, Operation, Upstream } from '../../policy/types.ts'
import { call, mcp, rest } from './decide-input.ts'

/** Small vocabularies: two random grants have to meet often, and differ in little. */
const hosts = ['https://a.example.org', 'https://b.example.org', 'https://a.b.example.org']
const methods = ['GET', 'POST']
const segments = ['x', 'y', 'z']
const tools = ['read', 'read_a', 'read_b', 'write']

const someOf = <T>(values: readonly T[]): fc.Arbitrary<T[]> =>
  fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 })

const location = fc.constantFrom(...hosts, 'https://*.example.org', 'https://*.b.example.org')

/** A path pattern: literal segments and `*`, and perhaps a `**` or an empty segment at its end. */
export const pathPattern = fc
  .tuple(
    fc.array(fc.constantFrom(...segments, '*', '*'), { maxLength: 3 }),
    fc.constantFrom(['**'], [''], [], []),
  )
  .map(([middle, end]) => `/${[...middle, ...end].join('/')}`)

export const path = fc
  .array(fc.constantFrom(...segments), { maxLength: 4 })
  .chain((parts) => fc.constantFrom(`/${parts.join('/')}`, `/${[...parts, ''].join('/')}`))

const toolPattern = fc.constantFrom(...tools, '*', 'read*', 'read_*', 'w*')

const argumentConstraint = fc.constantFrom(
  { enum: ['team/a', 'team/b'] },
  { enum: ['team/a'] },
  { enum: [1, 3] },
  { prefix: 'team/' },
  { prefix: 'te' },
  { prefix: 'team/', enum: ['team/a', 'other'] },
  { max: 3 },
  { max: 1 },
)

const destination: fc.Arbitrary<Destination> = fc.oneof(
  fc.record({
    type: fc.constant('http_api' as const),
    locations: fc.uniqueArray(location, { minLength: 1, maxLength: 2 }),
    actions: someOf(methods),
    paths: fc.uniqueArray(pathPattern, { minLength: 1, maxLength: 2 }),
    query: fc.constantFrom('allow' as const, 'deny' as const),
  }),
  fc.record({
    type: fc.constant('ws' as const),
    locations: fc.uniqueArray(
      location.map((text) => text.replace('http', 'ws')),
      { minLength: 1, maxLength: 2 },
    ),
    paths: fc.uniqueArray(pathPattern, { minLength: 1, maxLength: 2 }),
  }),
  fc.record({
    type: fc.constant('mcp_server' as const),
    locations: someOf(hosts.slice(0, 2).map((host) => `${host}/mcp`)),
    tools: fc.uniqueArray(toolPattern, { minLength: 1, maxLength: 2 }),
    args: fc.dictionary(fc.constantFrom('repo', 'n'), argumentConstraint, { maxKeys: 2 }),
  }),
)

/** Destinations of a parent, and those of a child that differ from them in a member here and there. */
export const wideAndNarrow: fc.Arbitrary<readonly [Destination[], Destination[]]> = fc
  .array(destination, { minLength: 1, maxLength: 3 })
  .chain((wide) => fc.tuple(fc.constant(wide), fc.tuple(...wide.map(changed))))

/** The entry, with some members of another of its type. */
function changed(entry: Destination): fc.Arbitrary<Destination> {
  return fc
    .tuple(destination, fc.func(fc.constantFrom(true, false, false)))
    .map(([other, isTaken]) => {
      if (other.type !== entry.type) return entry
      const taken = Object.entries(other).filter(([member]) => isTaken(member))
      return { ...entry, ...Object.fromEntries(taken) }
    })
}

interface Asked {
  readonly operation: Operation
  readonly upstream: Upstream
}

const upstreamOf = (base: Upstream): fc.Arbitrary<Upstream> =>
  fc.constantFrom(...hosts.slice(0, 2)).map((origin) => ({ ...base, origin }))

const argument = fc.tuple(
  fc.constantFrom('repo', 'n'),
  fc.constantFrom<ArgumentValue>('team/a', 'team/b', 'te', 'other', 1, 3, 4, true, null),
)

/** What an agent may ask, of upstreams that the grants above speak of. */
export const request: fc.Arbitrary<Asked> = fc.oneof(
  fc.record({
    operation: fc.record({
      kind: fc.constant('http' as const),
      method: fc.constantFrom(...methods),
      path,
      hasQuery: fc.boolean(),
    }),
    upstream: upstreamOf(rest),
  }),
  fc.record({
    operation: fc.record({
      kind: fc.constant('websocket' as const),
      method: fc.constant('GET' as const),
      path,
      hasQuery: fc.boolean(),
    }),
    upstream: upstreamOf(rest),
  }),
  fc.record({
    operation: fc
      .tuple(fc.constantFrom(...tools), fc.array(argument, { maxLength: 3 }))
      .map(([tool, args]) => call(tool, args)),
    upstream: upstreamOf(mcp),
  }),
)
