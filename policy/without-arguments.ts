import { askPolicies, type PolicyInput } from './ask-policies.ts'
import { compilePolicies, type Policy, type PolicyEngine } from './cedar.ts'
import { clausesOf, onOneLine, type Clause } from './clauses.ts'
import type { Decision } from './types.ts'

/** Answers for tool calls whose arguments nobody knows any more. */
export interface ArgumentlessEngine extends Disposable {
  /** What the policies say whatever the arguments are; undefined when it depends on them. */
  ask(asked: Omit<PolicyInput, 'engine'>): Decision | undefined
}

/**
 * Asks two sets: one in which all that reads arguments is in favour of the call, and one in which all is against it. What
 * both say is so whatever the arguments are. Undefined when Cedar does not take them.
 */
export function createArgumentlessEngine(
  policies: readonly Policy[],
  { schema }: { readonly schema: string },
): ArgumentlessEngine | undefined {
  using unwind = new DisposableStack()
  const open = (favoured: Policy['effect']): PolicyEngine | undefined => {
    const text = policies.flatMap((policy) => rewrite(policy, favoured)).join('\n')
    const compiled = compilePolicies([{ file: 'without arguments', text }], { schema })
    return compiled.ok ? unwind.use(compiled.engine) : undefined
  }
  const generous = open('permit')
  const severe = open('forbid')
  if (!generous || !severe) return undefined
  const owned = unwind.move()
  return {
    ask(known) {
      // What reads typed arguments is left out or taken for granted: here a call has none.
      const { upstream } = known
      const asked = upstream.tools
        ? { ...known, upstream: { ...upstream, tools: new Map() } }
        : known
      const best = askPolicies({ ...asked, engine: generous })
      const isFault = best.outcome === 'deny' && best.undecided === true
      if (best.outcome === 'deny' && !isFault) return best
      const worst = askPolicies({ ...asked, engine: severe })
      return !isFault && best.outcome === worst.outcome ? worst : undefined
    },
    [Symbol.dispose]: () => owned.dispose(),
  }
}

/** A policy that reads arguments applies whenever the rest of it does, or never. */
function rewrite(
  { text, id, effect, stepUp, mode }: Policy,
  favoured: Policy['effect'],
): readonly string[] {
  if (mode === 'shadow') return []
  const clauses = clausesOf(text)
  const kept = clauses.filter((clause) => !readsArguments(clause))
  if (kept.length < clauses.length && effect !== favoured) return []
  const part = (name: Clause['part']): string =>
    kept.find((clause) => clause.part === name)?.text ?? name
  const conditions = kept
    .filter((clause) => clause.part === 'when' || clause.part === 'unless')
    .map((clause) => `${clause.part} { ${clause.text} }`)
  const annotations = `@id("${id}")${stepUp ? ' @stepup' : ''}`
  const scope = `(${part('principal')}, ${part('action')}, ${part('resource')})`
  return [`${annotations} ${effect} ${scope} ${conditions.join(' ')};`]
}

/** Also the whole context: it holds them. */
function readsArguments(clause: Clause): boolean {
  const withoutText = onOneLine(clause).replaceAll(/"(?:[^"\\]|\\.)*"/g, '""')
  return /\b(?:args|integers|typed|Arguments|Integers)\b|\bcontext\b(?!\.)|\bcontext\.?\[/.test(
    withoutText,
  )
}
