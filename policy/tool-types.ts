import * as v from 'valibot'
import { insertBehind, quoted } from './cedar-text.ts'
import type { ArgumentValue, Upstream } from './types.ts'

/** What a tool's arguments are, by JSON pointer without its leading slash: those that Cedar has a type for. */
export type ToolTypes = ReadonlyMap<string, ReadonlyMap<string, ArgumentType>>

export interface ArgumentType {
  readonly type: 'Long' | 'String' | 'Bool'
  readonly isRequired: boolean
}

export type ToolTypesResult =
  | { readonly ok: true; readonly tools: ToolTypes }
  | { readonly ok: false; readonly reason: string }

/**
 * Reads an MCP `tools/list` result, alone or within its JSON-RPC answer. Scalars that are declared as text, integer or
 * boolean get a type, also within objects; numbers that may be fractions, lists and unions have none in Cedar.
 */
export function readToolTypes(value: unknown): ToolTypesResult {
  const read = v.safeParse(toolsList, value)
  if (!read.success)
    return { ok: false, reason: 'Expected the result of tools/list: { tools: [...] }' }
  const { tools } = 'result' in read.output ? read.output.result : read.output
  if (tools.length > maxTools) return { ok: false, reason: `Expected at most ${maxTools} tools` }
  const types = new Map<string, ReadonlyMap<string, ArgumentType>>()
  for (const { name, inputSchema } of tools) {
    if (!isPlain(name))
      return { ok: false, reason: 'Expected names of tools in plain Unicode text' }
    if (types.has(name)) return { ok: false, reason: `The tool ${quoted(name)} stands twice` }
    const found = new Map<string, ArgumentType>()
    collect(inputSchema, { prefix: '', isRequired: true, depth: 0, found })
    if (found.size > maxArguments) {
      return {
        ok: false,
        reason: `The tool ${quoted(name)} has more than ${maxArguments} arguments`,
      }
    }
    types.set(name, found)
  }
  return { ok: true, tools: types }
}

/** The schema with `context.typed` of a tool call: a record for each tool whose types are known. */
export function withToolTypes(schema: string, upstreams: Iterable<Upstream>): string {
  const typed = [...upstreams].filter(({ tools }) => tools !== undefined)
  if (typed.length === 0) return schema
  const records = typed.flatMap(({ name, tools = new Map() }) =>
    [...tools].map(
      ([tool, types]) => `      ${quoted(typedName(name, tool))}?: ${recordOf(types)},\n`,
    ),
  )
  const text = `    typed: {\n${records.join('')}    },\n`
  return insertBehind(schema, { line: '    listing: Bool,\n', text })
}

export type TypedArguments =
  | { readonly ok: true; readonly typed: Record<string, Record<string, ArgumentValue>> }
  | { readonly ok: false; readonly reason: string }

/** `context.typed` of one call. Arguments that are not as declared are refused: policies were checked against that. */
export function typedArguments(
  { name, tools = new Map() }: Upstream,
  { tool, args }: { readonly tool: string; readonly args: ReadonlyMap<string, ArgumentValue> },
): TypedArguments {
  const types: ReadonlyMap<string, ArgumentType> | undefined = tools.get(tool)
  if (!types) return { ok: true, typed: {} }
  const record = new Map<string, ArgumentValue>()
  for (const [pointer, { type, isRequired }] of types) {
    const value = args.get(pointer)
    if (value === undefined || (value === null && !isRequired)) {
      if (isRequired) return { ok: false, reason: 'a declared argument of the tool is missing' }
      continue
    }
    if (!isOf(type, value)) {
      return { ok: false, reason: 'an argument has another type than the tool declares' }
    }
    record.set(pointer, typeof value === 'string' ? value.normalize('NFC') : value)
  }
  return { ok: true, typed: { [typedName(name, tool)]: Object.fromEntries(record) } }
}

const maxTools = 1000
const maxArguments = 64
const maxDepth = 8

const tool = v.object({ name: v.string(), inputSchema: v.optional(v.unknown()) })
const list = v.object({ tools: v.array(tool) })
const toolsList = v.union([v.object({ result: list }), list])

const property = v.object({
  type: v.optional(v.union([v.string(), v.array(v.string())])),
  enum: v.optional(v.array(v.unknown())),
  properties: v.optional(v.record(v.string(), v.unknown())),
  required: v.optional(v.array(v.string())),
})

/** What Cedar's JSON takes for an entity or a function rather than a record's member. */
export const escapes: ReadonlySet<string> = new Set(['__entity', '__extn', '__expr'])

interface Walk {
  readonly prefix: string
  readonly isRequired: boolean
  readonly depth: number
  readonly found: Map<string, ArgumentType>
}

function collect(schema: unknown, { prefix, isRequired, depth, found }: Walk): void {
  const read = v.safeParse(property, schema)
  if (!read.success || depth > maxDepth) return
  const { properties = {}, required = [] } = read.output
  for (const [name, member] of Object.entries(properties)) {
    const pointer = `${prefix}${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
    if (!isPlain(name) || escapes.has(pointer)) continue
    const needed = isRequired && required.includes(name)
    const type = typeOf(member)
    if (type) found.set(pointer, { type: type.type, isRequired: needed && !type.isNullable })
    else collect(member, { prefix: `${pointer}/`, isRequired: needed, depth: depth + 1, found })
  }
}

const cedarTypes: Readonly<Record<string, ArgumentType['type']>> = {
  integer: 'Long',
  string: 'String',
  boolean: 'Bool',
}

function typeOf(
  member: unknown,
): { readonly type: ArgumentType['type']; readonly isNullable: boolean } | undefined {
  const read = v.safeParse(property, member)
  if (!read.success) return undefined
  const { type, enum: values } = read.output
  const isText = type === undefined && values?.every((value) => typeof value === 'string') === true
  const names = isText ? ['string'] : [type ?? []].flat()
  const [only, ...others] = names.filter((name) => name !== 'null')
  const found = only === undefined || others.length > 0 ? undefined : cedarTypes[only]
  return found && { type: found, isNullable: names.includes('null') }
}

/** A record type of Cedar. */
export function recordOf(types: ReadonlyMap<string, ArgumentType>): string {
  const members = [...types].map(
    ([pointer, { type, isRequired }]) => `${quoted(pointer)}${isRequired ? '' : '?'}: ${type}`,
  )
  return `{ ${members.join(', ')} }`
}

/** How a tool or an operation is called beside those of other upstreams. */
export function typedName(upstream: string, name: string): string {
  return `${upstream}/${name}`
}

function isOf(type: ArgumentType['type'], value: ArgumentValue): boolean {
  switch (type) {
    case 'Long':
      return typeof value === 'number' && Number.isSafeInteger(value)
    case 'String':
      return typeof value === 'string'
    case 'Bool':
      return typeof value === 'boolean'
  }
}

/** As a request is held to: two spellings of one name would be two names to Cedar. */
export function isPlain(name: string): boolean {
  return name !== '' && name.length <= 256 && name.isWellFormed() && name.normalize('NFC') === name
}
