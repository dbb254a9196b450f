import * as v from 'valibot'
import { nearestName } from './nearest-name.ts'
import type { Finding, SettingPath } from './problem.ts'

export type ValidateResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly findings: readonly Finding[] }

/** Checks a plain value against a schema and fills in the defaults. Findings never quote a value. */
export function validateValue<TSchema extends v.GenericSchema>(
  schema: TSchema,
  value: unknown,
): ValidateResult<v.InferOutput<TSchema>> {
  const parsed = v.safeParse(schema, value)
  if (parsed.success) return { ok: true, value: parsed.output }
  const findings = explain({ schema, value, path: [] })
  return { ok: false, findings: distinct(findings) }
}

/** A piece of the file and what it should be. */
interface Piece {
  readonly schema: v.GenericSchema
  readonly value: unknown
  readonly path: SettingPath
}

function explain(piece: Piece): readonly Finding[] {
  const { issues = [] } = v.safeParse(piece.schema, piece.value)
  return issues.flatMap((issue) => explainIssue(issue, piece))
}

function explainIssue(issue: v.BaseIssue<unknown>, piece: Piece): readonly Finding[] {
  const path = pathOf(issue)
  if (issue.type === 'union') return explainUnion(issue, descend(piece, path))
  const atKey = issue.path?.at(-1)?.origin === 'key'
  if (!atKey) return [{ path: [...piece.path, ...path], message: messageOf(issue) }]
  const parent = descend(piece, path.slice(0, -1))
  // Only the first unknown key is an issue: the others are looked for here.
  if (issue.expected === 'never') return findUnknownKeys(parent, keysOf(parent.schema))
  if (Array.isArray(parent.value)) return [{ path: parent.path, message: 'Expected a mapping' }]
  const hint = isPlainObject(parent.value) && Object.keys(parent.value).length === 0
  const message = issue.message.startsWith('Invalid ') || !hint ? 'Required' : issue.message
  return [{ path: [...piece.path, ...path], message }]
}

/**
 * A union fails as a whole, which says little. The keys that are there show which alternative was meant; only when they
 * do not is the union's own message the best there is.
 */
function explainUnion(issue: v.BaseIssue<unknown>, piece: Piece): readonly Finding[] {
  const { schema, value, path } = piece
  const whole = [{ path, message: messageOf(issue) }]
  if (!isUnion(schema) || !isPlainObject(value)) return whole
  const ranked = schema.options
    .map((option) => ({ option, shared: keysOf(option).filter((key) => key in value).length }))
    .toSorted((a, b) => b.shared - a.shared)
  const [first, second] = ranked
  if (first && first.shared > 0 && first.shared > (second?.shared ?? 0)) {
    return explain({ ...piece, schema: first.option })
  }
  const unknown = findUnknownKeys(piece, schema.options.flatMap(keysOf))
  return unknown.length > 0 ? unknown : whole
}

function findUnknownKeys({ value, path }: Piece, known: readonly string[]): readonly Finding[] {
  if (!isPlainObject(value)) return []
  return Object.keys(value)
    .filter((key) => !known.includes(key))
    .map((key) => {
      const suggestion = nearestName(key, known)
      return {
        path: [...path, key],
        message: 'Unknown setting',
        atKey: true,
        ...(suggestion !== undefined && { suggestion }),
      }
    })
}

function pathOf(issue: v.BaseIssue<unknown>): SettingPath {
  return (issue.path ?? []).map(({ key }) => (typeof key === 'number' ? key : String(key)))
}

/** The library's own texts quote what they received, which may be a secret: only what was expected is said. */
function messageOf({ message, expected }: v.BaseIssue<unknown>): string {
  if (!message.startsWith('Invalid ')) return message
  const names = new Map([
    ['Object', 'a mapping'],
    ['Array', 'a list'],
    ['string', 'text'],
    ['boolean', 'true or false'],
    ['number', 'a number'],
  ])
  if (expected === null) return 'Expected another value'
  return `Expected ${names.get(expected) ?? expected.replace(/^\((.*)\)$/, '$1').replaceAll(' | ', ' or ')}`
}

function descend({ schema, value, path }: Piece, below: SettingPath): Piece {
  let piece: Piece = { schema: unwrap(schema, value), value, path }
  for (const segment of below) {
    const next = isPlainObject(piece.value) || Array.isArray(piece.value) ? piece.value : {}
    const inner: unknown = Reflect.get(next, segment)
    const child = childSchema(piece.schema, segment) ?? v.unknown()
    piece = { schema: unwrap(child, inner), value: inner, path: [...piece.path, segment] }
  }
  return piece
}

/** Sees through `optional`, and through a variant to the alternative that the discriminator names. */
function unwrap(schema: v.GenericSchema, value: unknown): v.GenericSchema {
  if (isOptional(schema)) return unwrap(schema.wrapped, value)
  if (!isVariant(schema) || !isPlainObject(value)) return schema
  const { key } = schema
  const named = schema.options.find((option) => {
    const discriminator = childSchema(option, key)
    return discriminator && v.is(discriminator, value[key])
  })
  return named ?? schema
}

function childSchema(
  schema: v.GenericSchema,
  segment: string | number,
): v.GenericSchema | undefined {
  if (isArray(schema)) return schema.item
  return isObject(schema) ? schema.entries[segment] : undefined
}

function keysOf(schema: v.GenericSchema): readonly string[] {
  return isObject(schema) ? Object.keys(schema.entries) : []
}

function isObject(
  schema: v.GenericSchema,
): schema is v.GenericSchema & { readonly entries: Readonly<Record<string, v.GenericSchema>> } {
  return schema.type === 'strict_object'
}

function isArray(
  schema: v.GenericSchema,
): schema is v.GenericSchema & { readonly item: v.GenericSchema } {
  return schema.type === 'array'
}

function isOptional(
  schema: v.GenericSchema,
): schema is v.GenericSchema & { readonly wrapped: v.GenericSchema } {
  return schema.type === 'optional'
}

function isUnion(
  schema: v.GenericSchema,
): schema is v.GenericSchema & { readonly options: readonly v.GenericSchema[] } {
  return schema.type === 'union'
}

function isVariant(schema: v.GenericSchema): schema is v.GenericSchema & {
  readonly key: string
  readonly options: readonly v.GenericSchema[]
} {
  return schema.type === 'variant'
}

function isPlainObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function distinct(findings: readonly Finding[]): readonly Finding[] {
  const seen = new Map<string, Finding>()
  for (const finding of findings) {
    const key = JSON.stringify([finding.path, finding.message])
    if (!seen.has(key)) seen.set(key, finding)
  }
  return [...seen.values()]
}
