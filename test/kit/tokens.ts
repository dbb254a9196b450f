import { createHash, createPublicKey, KeyObject, sign, type SignKeyObjectInput } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, type JWK } from 'jose'
import type { GrantClaims } from '../../policy/grant.ts'

/** The names that every maker below uses unless told otherwise. */
export const names = {
  trustDomain: 'example.org',
  agent: 'spiffe://example.org/agent/a',
  audience: 'spiffe://example.org/chaperone',
  approver: 'https://approver.example.org',
  upstream: 'https://api.example.org',
} as const

/** A real key pair. */
export interface SigningKey {
  readonly kid: string
  readonly alg: string
  readonly privateKey: KeyObject
  readonly publicJwk: JWK
  readonly privateJwk: JWK
}

export async function signingKey(
  alg: string = 'ES256',
  options: { readonly kid?: string; readonly modulusLength?: number } = {},
): Promise<SigningKey> {
  const { modulusLength = 2048 } = options
  const pair = await generateKeyPair(alg, { extractable: true, modulusLength })
  const jwk = await exportJWK(pair.publicKey)
  const kid = options.kid ?? (await calculateJwkThumbprint(jwk))
  return {
    kid,
    alg,
    privateKey: KeyObject.from(pair.privateKey),
    publicJwk: { ...jwk, kid, alg },
    privateJwk: { ...(await exportJWK(pair.privateKey)), kid, alg },
  }
}

/** A JSON object, or exactly these bytes when the test wants what no serializer writes. */
export type Part = object | string | Uint8Array

/** A compact JWS over exactly these parts, whatever they are: nothing is checked, the signature is real. */
export function signRaw(
  key: SigningKey,
  parts: { readonly header: Part; readonly payload: Part },
): string {
  const input = `${base64url(parts.header)}.${base64url(parts.payload)}`
  return `${input}.${signatureOf(key, input).toString('base64url')}`
}

/** The JOSE signature of `key` over the text, by the algorithm of the key. */
export function signatureOf(key: SigningKey, input: string): Buffer {
  const digest = key.alg.startsWith('Ed') ? null : `sha${key.alg.slice(2)}`
  return sign(digest, Buffer.from(input), {
    key: key.privateKey,
    ...(key.alg.startsWith('ES') && { dsaEncoding: 'ieee-p1363' }),
    // RFC 7518 section 3.5: PSS with a salt as long as the hash.
    ...(key.alg.startsWith('PS') && { padding: 6, saltLength: Number(key.alg.slice(2)) / 8 }),
  } satisfies SignKeyObjectInput)
}

export function base64url(part: Part): string {
  if (part instanceof Uint8Array) return Buffer.from(part).toString('base64url')
  const text = typeof part === 'string' ? part : JSON.stringify(part)
  return Buffer.from(text).toString('base64url')
}

interface TokenOptions<TClaims> {
  /** Laid over the valid claims; `undefined` takes a claim out. */
  readonly claims?: TClaims
  readonly header?: Readonly<Record<string, unknown>>
  /** Epoch milliseconds at which it is issued. Default: now. */
  readonly nowMs?: number
}

/** Valid claims of an SVID for `names.agent`, five minutes long. */
export function svidClaims(nowMs: number = Date.now()): Record<string, unknown> {
  const iat = Math.floor(nowMs / 1000)
  return { sub: names.agent, aud: [names.audience], iat, exp: iat + 300 }
}

/** A JWT-SVID: valid, but for what the options change. */
export function signSvid(
  key: SigningKey,
  options: TokenOptions<Readonly<Record<string, unknown>>> = {},
): string {
  return signRaw(key, {
    header: { alg: key.alg, kid: key.kid, typ: 'JWT', ...options.header },
    payload: { ...svidClaims(options.nowMs), ...options.claims },
  })
}

/** Valid claims of a grant for `names.agent` to GET anything of `names.upstream`, ten minutes long. */
export function grantClaims(nowMs: number = Date.now()): GrantClaims {
  const iat = Math.floor(nowMs / 1000)
  return {
    iss: names.approver,
    sub: names.agent,
    aud: names.audience,
    jti: `grant-${crypto.randomUUID()}`,
    txn: `task-${crypto.randomUUID()}`,
    iat,
    exp: iat + 600,
    purpose: 'invoice-check',
    sensitivity: 'internal',
    authorization_details: [
      { type: 'http_api', locations: [names.upstream], actions: ['GET'], paths: ['/**'] },
    ],
  }
}

/** A task grant: valid, but for what the options change. */
export function signGrant(
  key: SigningKey,
  options: TokenOptions<Partial<GrantClaims> | Readonly<Record<string, unknown>>> = {},
): string {
  return signRaw(key, {
    header: { alg: key.alg, kid: key.kid, typ: 'task-grant+jwt', ...options.header },
    payload: { ...grantClaims(options.nowMs), ...options.claims },
  })
}

/** The claims of a grant for a sub-agent of this one, as narrow as the parent, but for its lineage. */
export function childClaims(
  parent: string,
  claims: Partial<GrantClaims> & Pick<GrantClaims, 'sub' | 'txn'>,
): GrantClaims {
  const [header, payload = ''] = parent.split('.')
  const above = JSON.parse(Buffer.from(payload, 'base64url').toString()) as GrantClaims
  const { jti, txn, sub, iss, delegation, ...kept } = above
  return {
    ...kept,
    iss,
    jti: `grant-${crypto.randomUUID()}`,
    ...(delegation &&
      delegation.max_depth > 1 && {
        delegation: { ...delegation, max_depth: delegation.max_depth - 1 },
      }),
    prf: {
      jti,
      iss,
      s256: createHash('sha256').update(`${header}.${payload}`).digest('base64url'),
    },
    anc: [...(above.anc ?? []), { jti, txn, sub }],
    ...claims,
  }
}

/** A SPIFFE bundle document with these keys for JWT-SVIDs. */
export function bundleDocument(
  keys: readonly (SigningKey | JWK)[],
  members: Readonly<Record<string, unknown>> = {},
): string {
  return JSON.stringify({
    ...members,
    keys: keys.map((key) => ({ ...('publicJwk' in key ? key.publicJwk : key), use: 'jwt-svid' })),
  })
}

/** A JWK Set document with the public keys, as approvers publish one. */
export function jwksDocument(keys: readonly SigningKey[]): string {
  return JSON.stringify({ keys: keys.map((key) => key.publicJwk) })
}

/** The public key as PEM text: what an HMAC attack takes for a secret. */
export function publicPem(key: SigningKey): string {
  return createPublicKey(key.privateKey).export({ type: 'spki', format: 'pem' }).toString()
}
