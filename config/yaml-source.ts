import {
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
  type Document,
  type Node,
} from 'yaml'
import type { SettingPath } from './problem.ts'

/** A parsed YAML file that still knows where everything stands. */
export interface YamlSource {
  readonly value: unknown
  /** Where a setting stands, or its nearest parent when the file leaves it out. */
  locate(path: SettingPath, options: { readonly atKey: boolean }): Position
}

export interface Position {
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly col: number
}

export interface YamlProblem extends Position {
  readonly message: string
}

export type YamlResult =
  | { readonly ok: true; readonly source: YamlSource }
  | { readonly ok: false; readonly problems: readonly YamlProblem[] }

interface YamlOptions {
  /** Takes keys of any scalar, as in documents that are not ours: `200`. Default false: they are text. */
  readonly anyKeys?: boolean
}

/** Reads one plain YAML 1.2 document: no aliases, no tags, no merge keys, no key twice. */
export function parseYaml(text: string, { anyKeys = false }: YamlOptions = {}): YamlResult {
  try {
    return parse(text, { anyKeys })
  } catch {
    // The parser recurses: brackets nested without end exhaust the stack.
    return {
      ok: false,
      problems: [{ line: 1, col: 1, message: 'Expected YAML of sensible depth' }],
    }
  }
}

function parse(text: string, options: Required<YamlOptions>): YamlResult {
  const lines = new LineCounter()
  const document = parseDocument(text, {
    lineCounter: lines,
    // Pretty errors quote the source, which may hold a secret put there by mistake.
    prettyErrors: false,
    uniqueKeys: true,
    merge: false,
    schema: 'core',
    // With "silent" a second document would be dropped without a word.
    logLevel: 'error',
  })
  const position = (offset: number): Position => {
    const { line, col } = lines.linePos(offset)
    return { line: Math.max(line, 1), col: Math.max(col, 1) }
  }
  const problems = [
    ...[...document.errors, ...document.warnings]
      // `findForbidden()` reports every tag, known or not.
      .filter(({ code }) => code !== 'TAG_RESOLVE_FAILED')
      .map(({ code, pos }) => ({
        ...position(pos[0]),
        message: messages.get(code) ?? `Expected well-formed YAML (${code})`,
      })),
    ...findForbidden(document, options).map(({ offset, message }) => ({
      ...position(offset),
      message,
    })),
  ]
  if (problems.length > 0) return { ok: false, problems }
  const value: unknown = document.toJS({ maxAliasCount: 0 })
  return {
    ok: true,
    source: {
      value,
      locate: (path, { atKey }) => position(findOffset(document, { path, atKey })),
    },
  }
}

/** Own texts for the common errors: those of the parser may quote the source. */
const messages: ReadonlyMap<string, string> = new Map([
  ['BAD_INDENT', 'Expected another indentation'],
  ['BAD_ALIAS', 'Aliases are not allowed'],
  ['BLOCK_IN_FLOW', 'Expected no block mapping within brackets'],
  ['DUPLICATE_KEY', 'The key stands twice'],
  ['MISSING_CHAR', 'Expected a closing bracket, quote, comma or colon'],
  ['MULTIPLE_DOCS', 'Expected one document'],
  ['RESOURCE_EXHAUSTION', 'Expected less nesting'],
  ['TAB_AS_INDENT', 'Expected spaces, not tabs, as indentation'],
  ['UNEXPECTED_TOKEN', 'Expected well-formed YAML'],
])

interface Forbidden {
  readonly offset: number
  readonly message: string
}

/** Aliases expand without bound, and a tag changes what a value is: neither belongs in a security configuration. */
function findForbidden(
  document: Document,
  { anyKeys }: Required<YamlOptions>,
): readonly Forbidden[] {
  const found: Forbidden[] = []
  visit(document, {
    Alias(_, node) {
      found.push({ offset: startOf(node), message: 'Aliases are not allowed' })
    },
    Pair(_, { key }) {
      if (isScalar(key) && anyKeys) return
      if (isScalar(key) && typeof key.value === 'string' && !(key.value in Object.prototype)) return
      // A schema that looks names up with `in` would take `constructor` for a known one.
      found.push({ offset: isNode(key) ? startOf(key) : 0, message: 'Expected another key' })
    },
    Value(_, node) {
      if (node.anchor !== undefined) {
        found.push({ offset: startOf(node), message: 'Anchors are not allowed' })
      }
      if (node.tag !== undefined) {
        found.push({ offset: startOf(node), message: 'Tags are not allowed' })
      }
    },
  })
  return found
}

function findOffset(
  document: Document,
  { path, atKey }: { readonly path: SettingPath; readonly atKey: boolean },
): number {
  let node: unknown = document.contents
  let offset = startOf(document.contents)
  for (const [index, segment] of path.entries()) {
    const found = childOf(node, segment)
    if (!found) return offset
    const isTarget = index === path.length - 1
    node = found.value
    offset = isTarget && atKey ? found.offset : (found.value?.range?.[0] ?? found.offset)
  }
  return offset
}

interface Child {
  readonly value: Node | null
  readonly offset: number
}

function childOf(node: unknown, segment: string | number): Child | undefined {
  if (isSeq<Node>(node) && typeof segment === 'number') {
    const value = node.items[segment]
    return value && { value, offset: startOf(value) }
  }
  if (!isMap<Node, Node | null>(node)) return undefined
  const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === segment)
  return pair && { value: pair.value, offset: startOf(pair.key) }
}

function startOf(node: Node | null): number {
  if (!node) return 0
  return node.range?.[0] ?? 0
}
