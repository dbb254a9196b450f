import * as v from 'valibot'
import type { Finding, SettingPath } from '../config/problem.ts'
import { validateValue, type ValidateResult } from '../config/validate.ts'
import {
  fitsAround,
  shapeOf,
  type ApiOperation,
  type ApiOperations,
  type TemplateSegment,
} from './api-operations.ts'
import { quoted } from './cedar-text.ts'
import { decodeSegment } from './path-pattern.ts'
import { escapes, isPlain } from './tool-types.ts'

export type OpenApiResult =
  | { readonly ok: true; readonly operations: ApiOperations }
  /** By their place in the document. */
  | { readonly ok: false; readonly findings: readonly Finding[] }

/**
 * Reads the operations of an OpenAPI document, version 3.0 or 3.1: methods, path templates and the path parameters that
 * are integers. Paths are those below `basePath`, the raw path of the upstream's URL without a trailing slash; `servers`
 * is not looked at. A `$ref` is followed within the document, in place of a path item or a parameter.
 */
export function readOpenApi(
  document: unknown,
  { basePath }: { readonly basePath: string },
): OpenApiResult {
  const read = validateValue(documentSchema, document)
  if (!read.ok) return read
  const reader = new Reader(document)
  const base = basePath
    .split('/')
    .slice(1)
    .map((segment) => decodeSegment(segment) ?? segment)
  for (const [path, item] of Object.entries(read.value.paths)) {
    if (!path.startsWith('x-')) reader.readPath(path, item)
  }
  const { findings, found } = reader
  if (found.length > maxOperations) {
    findings.push({ path: ['paths'], message: `Expected at most ${maxOperations} operations` })
  }
  const rooted = found.map(({ path, operation }) => ({
    path,
    method: operation.method,
    name: operation.name,
    segments: [...base.map((literal) => ({ literal })), ...operation.segments],
  }))
  const byShape = Map.groupBy(rooted, ({ method, segments }) => shapeOf(method, segments))
  // Comparing each with each is for a number that is within bounds.
  if (findings.length === 0) findings.push(...findTwice(rooted), ...findAmbiguous(byShape))
  if (findings.length > 0) return { ok: false, findings }
  const operations = [...byShape].map(
    ([shape, all]) =>
      [
        shape,
        all
          .map(({ name, segments }): ApiOperation => ({ name, segments }))
          .toSorted((a, b) => literalness(b) - literalness(a)),
      ] as const,
  )
  return { ok: true, operations: new Map(operations) }
}

const maxOperations = 1000
const maxSegments = 32
const maxTemplateLength = 240
const maxRefs = 8

const documentSchema = v.object({
  openapi: v.pipe(
    v.string('Expected openapi: 3.0.x or 3.1.x'),
    v.regex(/^3\.[01]\.\d+/, 'Expected openapi: 3.0.x or 3.1.x'),
  ),
  paths: v.record(v.string(), v.unknown()),
})

const name = v.pipe(
  v.string(),
  v.check(isPlain, 'Expected plain Unicode text of at most 256 characters'),
)
const members = v.record(v.string(), v.unknown())
const parameters = v.optional(v.array(v.unknown()), [])
const operationSchema = v.object({ operationId: v.optional(name), parameters })
const pathItemSchema = v.object({ parameters })
const parameterSchema = v.object({
  name,
  in: v.string(),
  schema: v.optional(v.object({ type: v.optional(v.union([v.string(), v.array(v.string())])) })),
})

const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace']

/** A value and where it stands, once its `$ref` is followed. */
interface Placed {
  readonly value: unknown
  readonly path: SettingPath
}

interface Found {
  /** Of the template, as its key in `paths`. */
  readonly path: SettingPath
  readonly operation: ApiOperation & { readonly method: string }
}

class Reader {
  readonly findings: Finding[] = []
  readonly found: Found[] = []
  readonly #document: unknown

  constructor(document: unknown) {
    this.#document = document
  }

  readPath(template: string, value: unknown): void {
    const path = ['paths', template]
    const item = this.#resolve({ value, path })
    const read = item && this.#check(members, item)
    const shared = read && this.#check(pathItemSchema, item)
    if (!item || !read || !shared) return
    const common = this.#typesOf(shared.parameters, item.path)
    for (const method of methods.filter((one) => Object.hasOwn(read, one))) {
      const placed = { value: read[method], path: [...item.path, method] }
      const operation = this.#check(operationSchema, placed)
      if (!operation) continue
      const types = new Map([...common, ...this.#typesOf(operation.parameters, placed.path)])
      const segments = this.#segmentsOf(template, types)
      if (!segments) return
      if (!isPlain(template))
        return this.#refuse(path, 'Expected a path in plain Unicode text', true)
      const verb = method.toUpperCase()
      const called = operation.operationId ?? `${verb} ${template}`
      this.found.push({ path, operation: { name: called, method: verb, segments } })
    }
  }

  #check<T extends v.GenericSchema>(
    schema: T,
    { value, path }: Placed,
  ): v.InferOutput<T> | undefined {
    const read: ValidateResult<v.InferOutput<T>> = validateValue(schema, value)
    if (read.ok) return read.value
    for (const finding of read.findings) {
      this.findings.push({ ...finding, path: [...path, ...finding.path] })
    }
    return undefined
  }

  #refuse(path: SettingPath, message: string, atKey = false): undefined {
    this.findings.push({ path, message, atKey })
    return undefined
  }

  #resolve(from: Placed): Placed | undefined {
    let placed = from
    for (let hops = 0; hops <= maxRefs; hops += 1) {
      const { value, path } = placed
      const ref = memberOf(value, '$ref')
      if (ref === undefined) return placed
      const at = [...path, '$ref']
      if (typeof ref !== 'string' || !ref.startsWith('#/')) {
        return this.#refuse(at, 'Expected a reference within the document: "#/..."')
      }
      const target = this.#find(ref)
      if (!target) return this.#refuse(at, 'Expected a reference to a part of the document')
      placed = target
    }
    return this.#refuse([...from.path, '$ref'], `Expected at most ${maxRefs} references in a row`)
  }

  /** RFC 6901, in a fragment. */
  #find(ref: string): Placed | undefined {
    let placed: Placed = { value: this.#document, path: [] }
    for (const raw of ref.slice('#/'.length).split('/')) {
      const part = decoded(raw)?.replaceAll('~1', '/').replaceAll('~0', '~')
      const key = Array.isArray(placed.value) ? Number(part) : part
      const value = key === undefined ? undefined : memberOf(placed.value, key)
      if (key === undefined || value === undefined) return undefined
      placed = { value, path: [...placed.path, key] }
    }
    return placed
  }

  /** Of parameters in the path, by name. */
  #typesOf(list: readonly unknown[], path: SettingPath): ReadonlyMap<string, 'Long' | 'String'> {
    const types = new Map<string, 'Long' | 'String'>()
    for (const [index, value] of list.entries()) {
      const placed = this.#resolve({ value, path: [...path, 'parameters', index] })
      const parameter = placed && this.#check(parameterSchema, placed)
      if (parameter?.in === 'path') types.set(parameter.name, typeOf(parameter.schema?.type))
    }
    return types
  }

  #segmentsOf(
    template: string,
    types: ReadonlyMap<string, 'Long' | 'String'>,
  ): readonly TemplateSegment[] | undefined {
    const refuse = (message: string): undefined => this.#refuse(['paths', template], message, true)
    const [first, ...texts] = template.split('/')
    if (first !== '' || texts.length > maxSegments || template.length > maxTemplateLength) {
      return refuse(
        `Expected a path such as "/pets/{id}" of at most ${maxSegments} segments and ${maxTemplateLength} characters`,
      )
    }
    const segments: TemplateSegment[] = []
    const names = new Set<string>()
    for (const [index, text] of texts.entries()) {
      const [, prefix, parameter, suffix] = segmentForm.exec(text) ?? []
      const isEmpty = text === '' && index < texts.length - 1
      if (prefix === undefined || isEmpty || text === '.' || text === '..') {
        return refuse(
          'Expected segments of decoded text with at most one parameter each, and none of "%?#;\\"',
        )
      }
      if (parameter === undefined || suffix === undefined) {
        segments.push({ literal: prefix })
        continue
      }
      const type = types.get(parameter)
      if (!type) return refuse(`Expected a parameter ${quoted(parameter)} with in: path`)
      if (names.has(parameter)) return refuse(`The parameter ${quoted(parameter)} stands twice`)
      if (!isPlain(parameter) || escapes.has(parameter)) {
        return refuse('Expected another name of a parameter')
      }
      names.add(parameter)
      segments.push({ parameter, type, prefix, suffix })
    }
    return segments
  }
}

/** `text`, or `before{name}after`. */
const segmentForm = /^([^{}%?#;\\\p{Cc}]*)(?:\{([^{}\p{Cc}]+)\}([^{}%?#;\\\p{Cc}]*))?$/u

function typeOf(type: string | readonly string[] | undefined): 'Long' | 'String' {
  const names = [type ?? []].flat().filter((one) => one !== 'null')
  return names.join() === 'integer' ? 'Long' : 'String'
}

function memberOf(value: unknown, key: string | number): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
  return Reflect.get(value, key)
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

type Rooted = ApiOperation & { readonly path: SettingPath; readonly method: string }

function findTwice(all: readonly Rooted[]): readonly Finding[] {
  const names = new Set<string>()
  return all.flatMap(({ name: called, path }) => {
    const isNew = !names.has(called)
    names.add(called)
    const message = `Another operation is called ${quoted(called)}`
    return isNew ? [] : [{ path, message, atKey: true }]
  })
}

/** Which of the two would answer must not hang on the order of the document. */
function findAmbiguous(byShape: ReadonlyMap<string, readonly Rooted[]>): readonly Finding[] {
  return [...byShape.values()].flatMap((all) =>
    all.flatMap((one, index) => {
      const other = all
        .slice(0, index)
        .find((before) => literalness(before) === literalness(one) && overlap(before, one))
      const message = `It matches the same paths as ${quoted(String(other?.path.at(-1)))} does`
      return other ? [{ path: one.path, message, atKey: true }] : []
    }),
  )
}

/** Whole literal segments count first, then those with some text beside a parameter. */
function literalness({ segments }: ApiOperation): number {
  const literals = segments.filter((segment) => 'literal' in segment).length
  const partial = segments.filter(
    (segment) => 'parameter' in segment && segment.prefix + segment.suffix !== '',
  ).length
  return literals * (maxSegments + 1) + partial
}

function overlap({ segments }: ApiOperation, { segments: others }: ApiOperation): boolean {
  return segments.every((one, index) => {
    const other = others[index]
    if (!other) return false
    if ('literal' in one) {
      return 'literal' in other ? one.literal === other.literal : fitsAround(other, one.literal)
    }
    if ('literal' in other) return fitsAround(one, other.literal)
    return (
      (one.prefix.startsWith(other.prefix) || other.prefix.startsWith(one.prefix)) &&
      (one.suffix.endsWith(other.suffix) || other.suffix.endsWith(one.suffix))
    )
  })
}
