import { parseCompactJws, verifySignature } from './compact-jws.ts'
import type { PublicKey } from './public-key.ts'
import type { JsonObject, JsonValue } from './strict-json.ts'

/** An operator's signed word that these records end. It names records, never a subject: what came later stays. */
export interface Lift {
  /** `jti`. */
  readonly rid: string
  /** The `rid` of every record that it ends. */
  readonly lifts: readonly string[]
  /** The operator that signed it. */
  readonly by: string
  readonly reason: string
  /** When it was signed, epoch milliseconds on the operator's clock. */
  readonly atMs: number
  /** The signed text: it is what is stored, so that whoever reads it can verify it. */
  readonly compact: string
}

/** The operators that may lift: name -> `kid` -> key. */
export type OperatorRegistry = ReadonlyMap<string, ReadonlyMap<string, PublicKey>>

export type LiftResult =
  | { readonly ok: true; readonly lift: Lift }
  /** `reason` holds no byte of the lift. */
  | { readonly ok: false; readonly reason: string }

export const liftTyp = 'revocation-lift+jwt'
export const maxLifted = 256
/** With its envelope it must fit into one message of the channel. */
export const maxLiftBytes = 15_872

/**
 * Verifies a compact `revocation-lift+jwt`. There is no limit of time: a lift that is replayed names the same records
 * again, and those are lifted already.
 */
export async function verifyLift(
  compact: string,
  options: { readonly operators: OperatorRegistry; readonly audience: string },
): Promise<LiftResult> {
  const parsed = parseCompactJws(compact, { maxBytes: maxLiftBytes })
  if (!parsed.ok) return refuse(parsed.reason)
  const { jws } = parsed
  const { alg, kid, typ, ...moreHeader } = jws.header
  if (typ !== liftTyp) return refuse(`header: typ is not "${liftTyp}"`)
  if (Object.keys(moreHeader).length > 0) {
    return refuse('header: has more members than alg, kid and typ')
  }
  if (typeof alg !== 'string' || typeof kid !== 'string')
    return refuse('header: alg or kid is not text')
  const claims = readClaims(jws.payload)
  if (typeof claims === 'string') return refuse(claims)
  if (claims.aud !== options.audience) return refuse('claim aud: is not this trust domain')
  const keys = options.operators.get(claims.iss)
  if (!keys) return refuse('its issuer is not an operator')
  const key = keys.get(kid)
  if (!key) return refuse('its key is not one of this operator')
  if (!(await verifySignature(jws, key))) return refuse('its signature does not verify')
  const { jti: rid, iss: by, lifts, reason, iat } = claims
  return { ok: true, lift: { rid, by, lifts, reason, atMs: iat * 1000, compact } }
}

/** What `aud` of a lift must be. Records belong to a trust domain, so a lift of another has no meaning here. */
export function liftAudience(trustDomain: string): string {
  return `spiffe://${trustDomain}/chaperone`
}

/** What a lift says, before it is signed. */
export interface LiftClaims {
  readonly iss: string
  readonly aud: string
  readonly jti: string
  readonly iat: number
  readonly op: 'lift'
  readonly lifts: readonly string[]
  readonly reason: string
}

const members: ReadonlySet<string> = new Set(['iss', 'aud', 'jti', 'iat', 'op', 'lifts', 'reason'])
const maxReasonChars = 1024

function readClaims(payload: JsonObject): LiftClaims | string {
  const { iss, aud, jti, iat, op, lifts, reason } = payload
  if (Object.keys(payload).some((name) => !members.has(name))) return 'it has unknown claims'
  if (op !== 'lift') return 'claim op: is not "lift"'
  if (typeof iss !== 'string' || typeof aud !== 'string') return 'claim iss or aud: is not text'
  if (!isRid(jti)) return 'claim jti: is not a record id'
  if (typeof iat !== 'number' || !Number.isSafeInteger(iat) || iat < 0) {
    return 'claim iat: is not a time'
  }
  if (typeof reason !== 'string' || reason.length > maxReasonChars) {
    return 'claim reason: is not text'
  }
  if (!Array.isArray(lifts) || lifts.length === 0 || lifts.length > maxLifted) {
    return `claim lifts: is not a list of 1 to ${maxLifted}`
  }
  const rids = lifts.filter(isRid)
  if (rids.length !== lifts.length) return 'claim lifts: is not a list of record ids'
  return { iss, aud, jti, iat, op, lifts: rids, reason }
}

function isRid(value: JsonValue | undefined): value is string {
  return typeof value === 'string' && /^[\x21-\x7e]{1,128}$/.test(value)
}

function refuse(reason: string): LiftResult {
  return { ok: false, reason }
}
