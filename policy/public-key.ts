import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'

/** A key that verifies signatures, with the only algorithms that it verifies. */
export interface PublicKey {
  readonly key: KeyObject
  readonly algs: readonly string[]
  /** Length of every signature by this key. */
  readonly signatureBytes: number
}

export type PublicKeyResult =
  | { readonly ok: true; readonly key: PublicKey }
  /** `reason` holds nothing of the key. */
  | { readonly ok: false; readonly reason: string }

/** Members of RFC 7518 section 6 that make a key private or symmetric. */
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'] as const

/** Curve -> what it signs with. ECDSA signatures in JOSE are two numbers of the curve's size (RFC 7518 section 3.4). */
const curves: ReadonlyMap<string, { algs: readonly string[]; signatureBytes: number }> = new Map([
  ['P-256', { algs: ['ES256'], signatureBytes: 64 }],
  ['P-384', { algs: ['ES384'], signatureBytes: 96 }],
  ['P-521', { algs: ['ES512'], signatureBytes: 132 }],
  ['Ed25519', { algs: ['EdDSA', 'Ed25519'], signatureBytes: 64 }],
])
const rsaAlgs = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']

/**
 * Imports a public JWK. Stricter than the runtime, which takes an RSA key of 1024 bits or with exponent 1: both let
 * anyone sign.
 */
export function importPublicKey(jwk: Readonly<Record<string, unknown>>): PublicKeyResult {
  if (privateMembers.some((member) => member in jwk)) return refuse('it is not a public key')
  if (Array.isArray(jwk['key_ops']) && !jwk['key_ops'].includes('verify')) {
    return refuse('its key_ops leave out "verify"')
  }
  const imported = importMaterial(jwk)
  if (!imported.ok || jwk['alg'] === undefined) return imported
  const alg = imported.key.algs.find((known) => known === jwk['alg'])
  if (alg === undefined) return refuse('its alg does not fit its type')
  return { ok: true, key: { ...imported.key, algs: [alg] } }
}

function importMaterial(jwk: Readonly<Record<string, unknown>>): PublicKeyResult {
  switch (jwk['kty']) {
    case 'RSA':
      return importRsa(jwk)
    case 'EC':
      return importCurve(jwk, ['kty', 'crv', 'x', 'y'])
    case 'OKP':
      return importCurve(jwk, ['kty', 'crv', 'x'])
    default:
      return refuse('its type is not known')
  }
}

function importRsa(jwk: Readonly<Record<string, unknown>>): PublicKeyResult {
  const key = importJwk(jwk, ['kty', 'n', 'e'])
  const { modulusLength = 0, publicExponent = 0n } = key?.asymmetricKeyDetails ?? {}
  if (!key) return refuse('its material is not valid')
  if (modulusLength < 2048 || modulusLength > 8192)
    return refuse('its modulus is not 2048-8192 bit')
  if (publicExponent < 65_537n || publicExponent % 2n === 0n) return refuse('its exponent is weak')
  return { ok: true, key: { key, algs: rsaAlgs, signatureBytes: Math.ceil(modulusLength / 8) } }
}

function importCurve(
  jwk: Readonly<Record<string, unknown>>,
  members: readonly string[],
): PublicKeyResult {
  const curve = typeof jwk['crv'] === 'string' ? curves.get(jwk['crv']) : undefined
  if (!curve) return refuse('its curve is not known')
  const key = importJwk(jwk, members)
  return key ? { ok: true, key: { key, ...curve } } : refuse('its material is not valid')
}

/** Hands over these members only: nothing else of a foreign document reaches the importer. */
function importJwk(
  jwk: Readonly<Record<string, unknown>>,
  members: readonly string[],
): KeyObject | undefined {
  const key: JsonWebKey = {}
  for (const member of members) {
    const value = jwk[member]
    if (typeof value !== 'string') return undefined
    key[member] = value
  }
  try {
    return createPublicKey({ key, format: 'jwk' })
  } catch {
    return undefined
  }
}

function refuse(reason: string): PublicKeyResult {
  return { ok: false, reason }
}
