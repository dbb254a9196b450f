/** One thing that must hold for a policy to apply: a part of its scope, or an operand of its conditions. */
export interface Clause {
  readonly part: 'principal' | 'action' | 'resource' | 'when' | 'unless'
  /** As it is written. */
  readonly text: string
  /** In UTF-16 units from the start of the policy's text. */
  readonly start: number
}

/**
 * What must hold all together for the policy to apply, in the order in which Cedar looks at it. A part of the scope that
 * is always true is left out. The text must be one policy that Cedar has parsed.
 */
export function clausesOf(text: string): readonly Clause[] {
  const tokens = tokensOf(text)
  const effect = tokens.findIndex(
    ({ word }, index) => /^(permit|forbid)$/.test(word) && tokens[index - 1]?.word !== '@',
  )
  const scopeEnd = closing(tokens, effect + 1)
  const scope = split(tokens.slice(effect + 2, scopeEnd), ',').filter(({ length }) => length > 1)
  return [
    ...scope.map((part) => clause(text, { part: partOf(part[0]?.word), tokens: part })),
    ...conditionsOf(text, tokens.slice(scopeEnd + 1)),
  ]
}

/** A policy that permits whatever the clause alone lets through. */
export function policyOfClause({ part, text }: Clause): string {
  if (part === 'when' || part === 'unless') {
    return `permit (principal, action, resource) ${part} { ${text} };`
  }
  const scope = ['principal', 'action', 'resource'].map((name) => (name === part ? text : name))
  return `permit (${scope.join(', ')});`
}

/** On one line, without comments. */
export function onOneLine({ text }: Pick<Clause, 'text'>): string {
  const withoutComments = text.replaceAll(tokenForm, (word) => (isComment(word) ? '' : word))
  return withoutComments.replaceAll(/\s+/g, ' ')
}

/** Where an annotation stands in the policy's text, in UTF-16 units. */
export function annotationStart(text: string, name: string): number {
  const tokens = tokensOf(text)
  const index = tokens.findIndex(
    ({ word }, at) => word === '@' && tokens[at + 1]?.word.trim() === name,
  )
  return tokens[index]?.start ?? 0
}

/** Where the first slot of a template stands, in UTF-16 units. */
export function slotStart(text: string): number {
  return tokensOf(text).find(({ word }) => word === '?')?.start ?? 0
}

interface Token {
  readonly word: string
  readonly start: number
}

/** Comments, quoted text, words, the two operators, every other character. A quote hides a comment. */
const tokenForm = /\/\/[^\n\r]*|"(?:[^"\\]|\\[^])*"|[A-Za-z_]\w*|&&|\|\||[^\s]/gu

function isComment(word: string): boolean {
  return word.startsWith('//')
}

function tokensOf(text: string): readonly Token[] {
  return [...text.matchAll(tokenForm)]
    .map(({ 0: word, index }) => ({ word, start: index }))
    .filter(({ word }) => !isComment(word))
}

function depthChange({ word }: Token): number {
  if (word === '(' || word === '[' || word === '{') return 1
  return word === ')' || word === ']' || word === '}' ? -1 : 0
}

/** The index of the bracket that closes the one at `open`. */
function closing(tokens: readonly Token[], open: number): number {
  let depth = 0
  for (let index = open; index < tokens.length; index += 1) {
    const token = tokens[index]
    if (token) depth += depthChange(token)
    if (depth === 0) return index
  }
  return tokens.length
}

/** Splits at a word that stands outside all brackets. */
function split(tokens: readonly Token[], at: string): readonly (readonly Token[])[] {
  const parts: Token[][] = [[]]
  let depth = 0
  for (const token of tokens) {
    depth += depthChange(token)
    if (depth === 0 && token.word === at) parts.push([])
    else parts.at(-1)?.push(token)
  }
  return parts
}

function conditionsOf(text: string, tokens: readonly Token[]): readonly Clause[] {
  const clauses: Clause[] = []
  let rest = tokens
  while (rest[0]?.word === 'when' || rest[0]?.word === 'unless') {
    const part = rest[0].word
    const end = closing(rest, 1)
    for (const operand of operandsOf(rest.slice(2, end), part)) {
      clauses.push(clause(text, { part, tokens: operand }))
    }
    rest = rest.slice(end + 1)
  }
  return clauses
}

/** `when { a && b }` needs both; `unless { a || b }` needs that neither holds. Anything else is one operand. */
function operandsOf(
  tokens: readonly Token[],
  part: 'when' | 'unless',
): readonly (readonly Token[])[] {
  const bare = withoutBrackets(tokens)
  const operator = part === 'when' ? '&&' : '||'
  const isWhole = split(bare, 'if').length > 1 || (part === 'when' && split(bare, '||').length > 1)
  const parts = isWhole ? [bare] : split(bare, operator)
  return parts.length === 1 ? [bare] : parts.flatMap((operand) => operandsOf(operand, part))
}

function withoutBrackets(tokens: readonly Token[]): readonly Token[] {
  const isBracketed = tokens[0]?.word === '(' && closing(tokens, 0) === tokens.length - 1
  return isBracketed ? withoutBrackets(tokens.slice(1, -1)) : tokens
}

function clause(
  text: string,
  { part, tokens }: { readonly part: Clause['part']; readonly tokens: readonly Token[] },
): Clause {
  const first = tokens[0]
  const last = tokens.at(-1)
  const start = first?.start ?? 0
  return { part, start, text: text.slice(start, last ? last.start + last.word.length : start) }
}

function partOf(word: string | undefined): Clause['part'] {
  return word === 'action' || word === 'resource' ? word : 'principal'
}
