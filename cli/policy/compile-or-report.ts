import { compilePolicies, type PolicyEngine, type PolicySource } from '../../policy/cedar.ts'
import { cedarSchema } from '../../proxy/policy-files.ts'

/** Compiles the policies, or says everything that is wrong with them as `file:line:col`. */
export function compileOrReport(
  sources: readonly PolicySource[],
  { complain }: { readonly complain: (line: string) => void },
): PolicyEngine | undefined {
  const compiled = compilePolicies(sources, { schema: cedarSchema() })
  if (compiled.ok) return compiled.engine
  for (const { file, line, col, message, hint } of compiled.problems) {
    complain(`${file}:${line}:${col} ${message}${hint === undefined ? '' : ` (${hint})`}`)
  }
  return undefined
}
