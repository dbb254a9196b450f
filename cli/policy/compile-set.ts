import { compilePolicies, type CompileResult } from '../../policy/cedar.ts'
import { formatPolicyProblem } from '../../policy/cedar-source.ts'
import type { PolicySet } from './policy-set.ts'

/** Compiles the policies, or says everything that is wrong with them as `file:line:col`. */
export function compileSet(
  { sources, schema }: Pick<PolicySet, 'sources' | 'schema'>,
  { complain }: { readonly complain: (line: string) => void },
): Extract<CompileResult, { ok: true }> | undefined {
  const compiled = compilePolicies(sources, { schema })
  if (compiled.ok) return compiled
  for (const problem of compiled.problems) complain(formatPolicyProblem(problem))
  return undefined
}
