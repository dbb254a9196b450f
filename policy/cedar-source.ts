import type { DetailedError } from '@cedar-policy/cedar-wasm/nodejs'

/** One policy file. `file` is the name that problems carry. */
export interface PolicySource {
  readonly file: string
  readonly text: string
}

/** What is wrong where. Line and column count from 1, columns in characters (code points). */
export interface PolicyProblem {
  readonly file: string
  readonly line: number
  readonly col: number
  readonly message: string
  readonly hint?: string
}

/** `team.cedar:3:8 attribute ... not found (did you mean ...)` */
export function formatPolicyProblem({ file, line, col, message, hint }: PolicyProblem): string {
  return `${file}:${line}:${col} ${message}${hint === undefined ? '' : ` (${hint})`}`
}

/** The text of one policy, and where it starts in its file, in UTF-16 units. */
export interface PolicyText {
  readonly text: string
  readonly start: number
}

export type SplitResult =
  | { readonly ok: true; readonly policies: readonly PolicyText[] }
  | { readonly ok: false; readonly start: number }

/**
 * Splits a file after each `;`, which Cedar has nowhere else outside text and comments. Fails at the first bracket
 * beyond `maxNesting`: Cedar's parser runs out of stack on those, and does not recover.
 */
export function splitPolicies(
  text: string,
  { maxNesting }: { readonly maxNesting: number },
): SplitResult {
  const policies: PolicyText[] = []
  let start: number | undefined
  let depth = 0
  for (const { 0: token, index } of text.matchAll(tokens)) {
    if (token.startsWith('//')) continue
    start ??= index
    if ('([{'.includes(token)) depth += 1
    if (')]}'.includes(token)) depth -= 1
    if (depth > maxNesting) return { ok: false, start: index }
    if (token !== ';') continue
    policies.push({ text: text.slice(start, index + 1), start })
    start = undefined
  }
  return { ok: true, policies }
}

/** A problem at a place in UTF-16 units. */
export function problemAt(
  { file, text }: PolicySource,
  {
    start,
    message,
    hint,
  }: { readonly start: number; readonly message: string; readonly hint?: string },
): PolicyProblem {
  const before = text.slice(0, start)
  const lineStart = before.lastIndexOf('\n') + 1
  const line = before.split('\n').length
  const col = Array.from(before.slice(lineStart)).length + 1
  return { file, line, col, message, ...(hint !== undefined && { hint }) }
}

/** Cedar's own words, at its own place: it counts bytes of UTF-8 from the start of the text that it was given. */
export function problemOf(
  source: PolicySource,
  { error, within }: { readonly error: DetailedError; readonly within: PolicyText },
): PolicyProblem {
  const [place] = error.sourceLocations ?? []
  const hint = error.help ?? place?.label ?? undefined
  return problemAt(source, {
    start: within.start + unitsOf(within.text, place?.start ?? 0),
    message: error.message.replace(/^for policy `[^`]*`, /, ''),
    ...(hint !== undefined && { hint }),
  })
}

/** Comments, quoted text, and every other character but white space. The order matters: a quote hides a comment. */
const tokens = /\/\/[^\n\r]*|"(?:[^"\\]|\\[^])*"|[^\s]/gu

function unitsOf(text: string, bytes: number): number {
  return Buffer.from(text).subarray(0, bytes).toString().length
}
