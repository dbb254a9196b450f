import type { Denial, DenialCode } from './types.ts'

/** Makes a refusal. `detail` is for audit: what failed, without token bytes, argument values or policy source. */
export function deny(
  code: DenialCode,
  detail: string,
  more: Pick<Denial, 'policyIds' | 'reason' | 'severity' | 'undecided' | 'revocation'> = {},
): Denial {
  return { outcome: 'deny', code, detail, ...more }
}

/** Tells a refusal from what a step would have given. */
export function isDenial(value: object): value is Denial {
  return 'outcome' in value && value.outcome === 'deny'
}
