import { insertBehind, quoted } from './cedar-text.ts'
import { decodeSegment } from './path-pattern.ts'
import { recordOf, typedName, type ArgumentType } from './tool-types.ts'
import type { ArgumentValue, Operation, Upstream } from './types.ts'

/**
 * The operations that an OpenAPI document names, by method and number of segments: `GET 3`. The most literal template
 * first; no two of one list match the same path equally well.
 */
export type ApiOperations = ReadonlyMap<string, readonly ApiOperation[]>

export interface ApiOperation {
  readonly name: string
  /** From the root of the upstream. */
  readonly segments: readonly TemplateSegment[]
}

/** Decoded text, or a parameter with what stands around it in its segment. */
export type TemplateSegment =
  | { readonly literal: string }
  | {
      readonly parameter: string
      readonly type: 'Long' | 'String'
      readonly prefix: string
      readonly suffix: string
    }

/** `context.operation` of a request that no document describes. No name of an operation is like it: each has a slash. */
export const undescribed = 'undescribed'

export interface AskedApi {
  readonly called: string
  /** By operation, its path parameters. */
  readonly typed: Readonly<Record<string, Readonly<Record<string, ArgumentValue>>>>
}

/** Which operation of the upstream a request asks for: the most literal template that its method and path match. */
export function findApiOperation(
  { name, operations = new Map() }: Pick<Upstream, 'name' | 'operations'>,
  { kind, method, path }: Operation,
): AskedApi {
  const nothing = { called: undescribed, typed: {} }
  if (kind !== 'http') return nothing
  const segments = path.split('/').slice(1)
  const candidates: readonly ApiOperation[] = operations.get(shapeOf(method, segments)) ?? []
  if (candidates.length === 0) return nothing
  const decoded: string[] = []
  for (const segment of segments) {
    const text = decodeSegment(segment)
    // As a grant has it: a path with a bad part anywhere is nobody's.
    if (text === undefined) return nothing
    decoded.push(text)
  }
  for (const candidate of candidates) {
    const parameters = match(candidate.segments, decoded)
    if (!parameters) continue
    const called = typedName(name, candidate.name)
    return { called, typed: { [called]: Object.fromEntries(parameters) } }
  }
  return nothing
}

/** The schema with `context.operation` and `context.typed` of plain HTTP, when an upstream has a document. */
export function withApiOperations(schema: string, upstreams: Iterable<Upstream>): string {
  const described = [...upstreams].filter(({ operations }) => operations !== undefined)
  if (described.length === 0) return schema
  const all = described.flatMap(({ name, operations = new Map() }) =>
    [...operations.values()].flat().map((operation: ApiOperation) => ({
      name: quoted(typedName(name, operation.name)),
      types: typesOf(operation),
    })),
  )
  const names = [...all.map(({ name }) => name), quoted(undescribed)]
  const records = all.map(({ name, types }) => `      ${name}?: ${recordOf(types)},\n`).join('')
  const withRecords = insertBehind(schema, {
    line: '  type Request = {\n',
    text: `    operation: Operation,\n    typed: {\n${records}    },\n`,
  })
  return insertBehind(withRecords, {
    line: 'namespace Chaperone {\n',
    text: `  entity Operation enum [\n    ${names.join(',\n    ')}\n  ];\n\n`,
  })
}

/** The key of `ApiOperations`. */
export function shapeOf(method: string, segments: readonly unknown[]): string {
  return `${method} ${segments.length}`
}

function typesOf({ segments }: ApiOperation): ReadonlyMap<string, ArgumentType> {
  const types = segments.flatMap((segment) =>
    'parameter' in segment
      ? [[segment.parameter, { type: segment.type, isRequired: true }] as const]
      : [],
  )
  return new Map(types)
}

function match(
  template: readonly TemplateSegment[],
  segments: readonly string[],
): readonly (readonly [string, ArgumentValue])[] | undefined {
  const parameters: (readonly [string, ArgumentValue])[] = []
  for (const [index, wanted] of template.entries()) {
    const text = segments[index] ?? ''
    if ('literal' in wanted) {
      if (wanted.literal !== text) return undefined
      continue
    }
    if (!fitsAround(wanted, text)) return undefined
    const { prefix, suffix, type, parameter } = wanted
    const value = valueOf(type, text.slice(prefix.length, text.length - suffix.length))
    if (value === undefined) return undefined
    parameters.push([parameter, value])
  }
  return parameters
}

/** Whether the text may stand in the segment. The parameter itself is never empty. */
export function fitsAround(
  { prefix, suffix }: { readonly prefix: string; readonly suffix: string },
  text: string,
): boolean {
  return (
    text.length > prefix.length + suffix.length && text.startsWith(prefix) && text.endsWith(suffix)
  )
}

/** An integer has one spelling: `05` is another resource, or the same one under a name that no policy has. */
function valueOf(type: 'Long' | 'String', text: string): ArgumentValue | undefined {
  if (type === 'String') return text.normalize('NFC')
  const value = Number(text)
  return /^(?:0|-?[1-9]\d*)$/.test(text) && Number.isSafeInteger(value) ? value : undefined
}
