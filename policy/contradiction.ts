import { onOneLine, type Clause } from './clauses.ts'
import type { Upstream } from './types.ts'

export interface Contradiction {
  /** The later one of the two. */
  readonly clause: Clause
  readonly message: string
  readonly hint: string
}

interface Context {
  /** What the scope lets through. */
  readonly actions: readonly string[]
  readonly upstreams?: ReadonlyMap<string, Upstream> | undefined
}

/** The first clause that cannot hold beside the others. What it does not find may be contradictory all the same. */
export function contradictionOf(
  clauses: readonly Clause[],
  context: Context,
): Contradiction | undefined {
  const held: Comparison[] = []
  for (const clause of clauses) {
    const comparison = comparisonOf(clause)
    if (!comparison) continue
    const other = held.find((one) => excludes(one, comparison))
    if (other) {
      const message = `It cannot hold beside "${onOneLine(other.clause)}"`
      return { clause, message, hint: 'Take one of the two out, or make two policies of it' }
    }
    const found = againstAction(comparison, context)
    if (found) return { clause, ...found }
    held.push(comparison)
  }
  return undefined
}

interface Comparison {
  readonly clause: Clause
  /** `context.method` */
  readonly path: string
  readonly operator: string
  /** As it is written; text with its quotes. */
  readonly literal: string
}

const form =
  /^([a-z_]\w*(?:\.\w+)*) (==|!=|<=?|>=?) ((?:[\w:]+::)?"(?:[^"\\]|\\.)*"|-?\d+|true|false)$/

/** A clause that compares one attribute with one literal. */
function comparisonOf(clause: Clause): Comparison | undefined {
  const [, path, operator, literal] = form.exec(onOneLine(clause)) ?? []
  if (path === undefined || operator === undefined || literal === undefined) return undefined
  if (clause.part !== 'unless') return { clause, path, operator, literal }
  return { clause, path, operator: negated[operator] ?? operator, literal }
}

const negated: Readonly<Record<string, string>> = {
  '==': '!=',
  '!=': '==',
  '<': '>=',
  '<=': '>',
  '>': '<=',
  '>=': '<',
}

function excludes(one: Comparison, other: Comparison): boolean {
  if (one.path !== other.path) return false
  if (one.operator === '==' && other.operator === '==') return one.literal !== other.literal
  if (isOpposite(one, other) || isOpposite(other, one)) return one.literal === other.literal
  const [first, second] = [rangeOf(one), rangeOf(other)]
  if (!first || !second) return false
  return first.least > second.most || second.least > first.most
}

function isOpposite(one: Comparison, other: Comparison): boolean {
  return one.operator === '==' && other.operator === '!='
}

/** Of integers, both ends included. */
function rangeOf({
  operator,
  literal,
}: Comparison): { readonly least: number; readonly most: number } | undefined {
  if (!/^-?\d{1,15}$/.test(literal)) return undefined
  const value = Number(literal)
  const all = { least: -Infinity, most: Infinity }
  switch (operator) {
    case '==':
      return { least: value, most: value }
    case '<':
      return { ...all, most: value - 1 }
    case '<=':
      return { ...all, most: value }
    case '>':
      return { ...all, least: value + 1 }
    case '>=':
      return { ...all, least: value }
    default:
      return undefined
  }
}

const readMethods = ['"GET"', '"HEAD"', '"OPTIONS"']
const mcpActions = ['mcp.request', 'mcp.response', 'tools/call']

/** What no request of these actions can have. */
function againstAction(
  { path, operator, literal }: Comparison,
  { actions, upstreams }: Context,
): Pick<Contradiction, 'message' | 'hint'> | undefined {
  if (operator !== '==') return undefined
  const only = (names: readonly string[]): boolean => actions.every((name) => names.includes(name))
  if (path === 'context.method' && only(['http.read']) && !readMethods.includes(literal)) {
    return { message: `No http.read has the method ${literal}`, hint: 'It is an http.write' }
  }
  if (path === 'context.method' && only(['http.write']) && readMethods.includes(literal)) {
    return { message: `No http.write has the method ${literal}`, hint: 'It is an http.read' }
  }
  const kind = kindOf({ path, literal }, upstreams)
  if (kind === 'rest' && only(mcpActions)) {
    const message = 'An upstream of the kind rest has no MCP messages'
    return { message, hint: 'Name an http action, or set kind: mcp in the configuration' }
  }
  return undefined
}

function kindOf(
  { path, literal }: Pick<Comparison, 'path' | 'literal'>,
  upstreams: Context['upstreams'],
): string | undefined {
  if (path === 'resource.kind') return literal.slice(1, -1)
  const name = /^Chaperone::Upstream::"(.*)"$/.exec(literal)?.[1]
  return path === 'resource' && name !== undefined ? upstreams?.get(name)?.kind : undefined
}
