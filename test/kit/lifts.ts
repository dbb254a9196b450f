import { liftAudience, liftTyp, verifyLift, type LiftClaims } from '../../policy/lift.ts'
import { importPublicKey } from '../../policy/public-key.ts'
import type { VerifyLift } from '../../revocation/lift-gate.ts'
import { names, signRaw, type SigningKey } from './tokens.ts'

export const operatorName = 'oncall'

/** A compact lift by `oncall`: valid, but for what the options change. */
export function signLift(
  key: SigningKey,
  options: {
    readonly claims?: Partial<LiftClaims> | Readonly<Record<string, unknown>>
    readonly header?: Readonly<Record<string, unknown>>
    readonly trustDomain?: string
  } = {},
): string {
  const claims: LiftClaims = {
    iss: operatorName,
    aud: liftAudience(options.trustDomain ?? names.trustDomain),
    jti: crypto.randomUUID(),
    iat: Math.floor(Date.now() / 1000),
    op: 'lift',
    lifts: ['r1'],
    reason: 'looked at it',
  }
  return signRaw(key, {
    header: { alg: key.alg, kid: key.kid, typ: liftTyp, ...options.header },
    payload: { ...claims, ...options.claims },
  })
}

/** Verifies lifts by `oncall`, who has this key. */
export function verifierOf(key: SigningKey, trustDomain: string = names.trustDomain): VerifyLift {
  const imported = importPublicKey({ ...key.publicJwk })
  if (!imported.ok) throw new Error(imported.reason)
  const operators = new Map([[operatorName, new Map([[key.kid, imported.key]])]])
  return (compact) => verifyLift(compact, { operators, audience: liftAudience(trustDomain) })
}
