import { readTextFile } from '../config/read-text-file.ts'
import type { OperatorConfig } from '../config/schema.ts'
import { parseApproverKeys } from '../policy/approver.ts'
import { liftAudience, verifyLift, type OperatorRegistry } from '../policy/lift.ts'
import type { VerifyLift } from '../revocation/lift-gate.ts'

/** The keys of an operator cannot be used. The message holds no key material. */
export class OperatorError extends Error {
  override readonly name = 'OperatorError'
  readonly code = 'ERR_OPERATOR_INVALID'
}

/** Verifies lifts by the operators of a configuration. Throws `OperatorError`: half of them would be a silent no. */
export function liftVerifier(config: {
  readonly operators: readonly OperatorConfig[]
  readonly trustDomain: string
}): VerifyLift {
  const operators = readOperators(config.operators)
  const audience = liftAudience(config.trustDomain)
  return (compact) => verifyLift(compact, { operators, audience })
}

function readOperators(operators: readonly OperatorConfig[]): OperatorRegistry {
  return new Map(
    operators.map(({ name, jwks }) => {
      try {
        const keys = parseApproverKeys(JSON.parse(readTextFile(jwks, { maxBytes: maxJwksBytes })))
        return [name, new Map(keys.map((key) => [key.kid, key]))]
      } catch (cause) {
        throw new OperatorError(`Operator "${name}": ${jwks}: ${reasonOf(cause)}`, { cause })
      }
    }),
  )
}

const maxJwksBytes = 256 * 1024

/** A JSON error quotes the text. */
function reasonOf(cause: unknown): string {
  return cause instanceof Error && !(cause instanceof SyntaxError) ? cause.message : 'not JSON'
}
