import { parseCompactJws, verifySignature, type CompactJws } from '../policy/compact-jws.ts'
import { deny, isDenial } from '../policy/denial.ts'
import type { PublicKey } from '../policy/public-key.ts'
import { parseSpiffeId, trustDomainOf } from '../policy/spiffe-id.ts'
import type { JsonObject, JsonValue } from '../policy/strict-json.ts'
import type { Agent, Denial, SpiffeId } from '../policy/types.ts'
import { svidAlgs, type TrustBundle } from './trust-bundle.ts'
import type { TrustBundleLookup } from './trust-bundles.ts'

/** An agent, with what decides whether the verification still holds later. */
export interface VerifiedSvid {
  readonly agent: Agent
  /** Epoch milliseconds; 0 when the SVID has no `nbf`. */
  readonly notBeforeMs: number
  /** Of the trust bundle that vouched. */
  readonly generation: number
}

export interface VerifyJwtSvidOptions {
  /** What `aud` must have, byte for byte. */
  readonly audience: string
  readonly bundles: { find(trustDomain: string): TrustBundleLookup }
  readonly clockSkewMs: number
  readonly maxSvidTtlMs: number
  readonly maxSvidBytes: number
  readonly maxAudiences: number
  /** Epoch milliseconds. */
  readonly nowMs: number
}

/**
 * Verifies a JWT-SVID. Checks go from cheap to dear and the signature is last. No detail holds a byte of the token. The
 * code is `identity-invalid`, or `control-plane-stale` when the domain is ours and only its bundle is missing or stale.
 */
export async function verifyJwtSvid(
  compact: string,
  options: VerifyJwtSvidOptions,
): Promise<VerifiedSvid | Denial> {
  const parsed = parseCompactJws(compact, { maxBytes: options.maxSvidBytes })
  if (!parsed.ok) return invalid(parsed.reason)
  const { jws } = parsed
  const header = readHeader(jws.header)
  if (typeof header === 'string') return invalid(header)

  const { sub, jti } = jws.payload
  const id = typeof sub === 'string' ? parseSpiffeId(sub) : undefined
  if (id === undefined) return invalid('claim sub: is not the SPIFFE ID of a workload')
  const trusted = findBundle(id, options)
  if (isDenial(trusted)) return trusted
  const keys = findKeys(header, trusted.bundle)
  if (typeof keys === 'string') return invalid(keys)

  const audience = checkAudience(jws.payload['aud'], options)
  if (audience !== undefined) return invalid(audience)
  const times = readTimes(jws.payload, options)
  if (typeof times === 'string') return invalid(times)
  if (jti !== undefined && !isJti(jti))
    return invalid('claim jti: is not text of at most 256 bytes')

  if (!(await isSignedByOne(jws, keys))) return invalid('its signature does not verify')
  const agent: Agent = {
    id,
    trustDomain: trustDomainOf(id),
    kind: 'jwt-svid',
    expiresAtMs: times.expiresAtMs,
    svidDigest: jws.digest16,
    ...(jti !== undefined && { svidJti: jti }),
  }
  return { agent, notBeforeMs: times.notBeforeMs, generation: trusted.generation }
}

/** A token without `kid` may be tried with this many keys: more would be work for the sender's asking. */
const maxKeyTries = 8
const maxJtiBytes = 256

interface Header {
  readonly alg: string
  readonly kid: string | undefined
}

/**
 * JWT-SVID section 2: nothing but `alg`, `kid`, `typ`. That one rule ends `jwk`, `jku`, `x5u`, `x5c`, `crit`, `b64` and
 * `zip`. `typ` keeps other kinds of token out.
 */
function readHeader(header: JsonObject): Header | string {
  const { alg, kid, typ, ...rest } = header
  if (Object.keys(rest).length > 0) return 'header: has more members than alg, kid and typ'
  if (typeof alg !== 'string' || !svidAlgs.has(alg)) return 'header: alg is none of JWT-SVID'
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') return 'header: typ is not JWT or JOSE'
  if (kid === undefined) return { alg, kid }
  if (typeof kid !== 'string' || kid === '' || kid.length > 256) return 'header: kid is not text'
  return { alg, kid }
}

/** The subject's own domain selects the bundle: keys of another domain are not even looked at. */
function findBundle(
  id: SpiffeId,
  { bundles }: VerifyJwtSvidOptions,
): Extract<TrustBundleLookup, { state: 'usable' }> | Denial {
  const found = bundles.find(trustDomainOf(id))
  if (found.state === 'unknown') return invalid('claim sub: its trust domain is not trusted')
  if (found.state === 'usable') return found
  return deny('control-plane-stale', `claim sub: its trust domain is ours, but ${found.reason}`)
}

function findKeys({ alg, kid }: Header, { keys }: TrustBundle): readonly PublicKey[] | string {
  if (kid !== undefined) {
    const key = keys.get(kid)
    if (!key) return 'header: kid is not in the trust bundle'
    return key.algs.includes(alg) ? [key] : 'header: alg is not one of its key'
  }
  const candidates = [...keys.values()].filter((key) => key.algs.includes(alg))
  if (candidates.length === 0) return 'header: no key of the trust bundle has this alg'
  return candidates.length <= maxKeyTries ? candidates : 'header: kid is missing among many keys'
}

function checkAudience(
  claim: JsonValue | undefined,
  { audience, maxAudiences }: VerifyJwtSvidOptions,
): string | undefined {
  const values: readonly unknown[] = Array.isArray(claim) ? claim : [claim]
  if (!values.every((value) => typeof value === 'string')) return 'claim aud: is not text or texts'
  if (!values.includes(audience)) return 'claim aud: is not this proxy'
  return values.length <= maxAudiences ? undefined : 'claim aud: has too many values'
}

/** RFC 7519 has fractional dates; here seconds are integers, as every issuer writes them. */
function readTimes(
  { exp, nbf = 0, iat = 0 }: JsonObject,
  options: VerifyJwtSvidOptions,
): { readonly expiresAtMs: number; readonly notBeforeMs: number } | string {
  if (!isSeconds(exp)) return 'claim exp: is missing or not an integer'
  if (!isSeconds(nbf)) return 'claim nbf: is not an integer'
  if (!isSeconds(iat)) return 'claim iat: is not an integer'
  const { nowMs, clockSkewMs } = options
  if (exp * 1000 + clockSkewMs <= nowMs) return 'claim exp: is past'
  if (exp * 1000 - nowMs > options.maxSvidTtlMs) return 'claim exp: is too far ahead'
  if (nbf * 1000 > nowMs + clockSkewMs) return 'claim nbf: is in the future'
  if (iat * 1000 > nowMs + clockSkewMs) return 'claim iat: is in the future'
  return { expiresAtMs: exp * 1000, notBeforeMs: nbf * 1000 }
}

function isSeconds(value: JsonValue | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

/** It reaches audit records, so it is short and has no control characters. */
function isJti(value: JsonValue): value is string {
  return (
    typeof value === 'string' && Buffer.byteLength(value) <= maxJtiBytes && !/\p{Cc}/u.test(value)
  )
}

async function isSignedByOne(jws: CompactJws, keys: readonly PublicKey[]): Promise<boolean> {
  for (const key of keys) {
    // One after the other: in parallel, a token without `kid` would cost all of them each time.
    if (await verifySignature(jws, key)) return true
  }
  return false
}

function invalid(detail: string): Denial {
  return deny('identity-invalid', detail)
}
