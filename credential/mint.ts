import {
  createHash,
  createPrivateKey,
  createPublicKey,
  randomBytes,
  type KeyObject,
} from 'node:crypto'
import type { JWK } from 'jose'
import { SignJWT } from 'jose/jwt/sign'
import type { Config, CredentialConfig } from '../config/schema.ts'
import { coversOrigin, httpOriginOf } from '../policy/location.ts'
import { isJsonObject, parseStrictJson, type JsonValue } from '../policy/strict-json.ts'
import type { Clock, Destination, GrantChain, Upstream } from '../policy/types.ts'
import { CredentialError, type Credential, type Issuer, type IssueRequest } from './issuer.ts'
import { openSecretFile } from './secret-file.ts'

/** The keys that sign minted credentials, read again when their file changes. */
export interface MintKeys {
  /** `iss` of what is minted. */
  readonly issuer: string
  /** Signs an `at+jwt` with the first key. Rejects with `CredentialError` when there is no usable key. */
  sign(claims: Readonly<Record<string, unknown>>): Promise<string>
  /** The public halves of all keys, as upstreams fetch them. */
  jwks(): { readonly keys: readonly JWK[] }
}

type MintConfig = Extract<CredentialConfig, { mint: unknown }>['mint']

/** Throws `CredentialError` when the key file holds no usable key now. */
export function createMintKeys(
  config: NonNullable<Config['mint']>,
  { clock }: { readonly clock: Clock },
): MintKeys {
  const file = openSecretFile(config.keys.file, clock)
  let text = ''
  let keys: readonly MintKey[] = []
  const current = (): readonly MintKey[] => {
    const now = file.read()
    if (now === text) return keys
    keys = parseMintKeys(now, config.keys.file)
    text = now
    return keys
  }
  current()
  return {
    issuer: config.issuer,
    async sign(claims) {
      const [key] = current()
      if (!key) throw new CredentialError('No minting key')
      const header = { alg: key.alg, kid: key.kid, typ: 'at+jwt' }
      return new SignJWT(claims).setProtectedHeader(header).sign(key.privateKey)
    },
    jwks: () => ({ keys: current().map(({ publicJwk }) => publicJwk) }),
  }
}

/**
 * Mints an RFC 9068 access token for one upstream, one task and two minutes (identity.md 3.3). It never holds the
 * agent's own token: only what the grant says. Class R1: it ends by its expiry.
 */
export function createMintIssuer(
  config: MintConfig,
  { keys }: { readonly keys: MintKeys },
): Issuer {
  return {
    kind: 'mint',
    revocationClass: 'R1',
    slots: { headers: ['authorization'], query: [] },
    async issue(request) {
      const claims = mintedClaims(request, { config, issuer: keys.issuer })
      if (claims.exp <= claims.iat)
        throw new CredentialError('The grant ends before a credential could start')
      const token = await keys.sign(claims)
      return bearer(token, claims)
    },
  }
}

interface MintKey {
  readonly kid: string
  readonly alg: string
  readonly privateKey: KeyObject
  readonly publicJwk: JWK
}

const maxKeys = 16
const maxKeyFileBytes = 65_536
/** Curve -> what it signs with. */
const algOfCurve: ReadonlyMap<unknown, string> = new Map([
  ['P-256', 'ES256'],
  ['P-384', 'ES384'],
  ['Ed25519', 'EdDSA'],
])

function parseMintKeys(text: string, path: string): readonly MintKey[] {
  const parsed = parseStrictJson(Buffer.from(text), { maxBytes: maxKeyFileBytes, maxDepth: 8 })
  const entries = parsed.ok && isJsonObject(parsed.value) ? parsed.value['keys'] : undefined
  if (!isJsonArray(entries) || entries.length === 0 || entries.length > maxKeys) {
    throw new CredentialError(
      `Key file ${path}: Expected a JWK Set with 1 to ${maxKeys} private keys`,
    )
  }
  return entries.map((entry, index) => parseMintKey(entry, `Key file ${path}: keys[${index}]`))
}

function isJsonArray(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value)
}

function parseMintKey(jwk: JsonValue, where: string): MintKey {
  if (!isJsonObject(jwk)) throw new CredentialError(`${where}: Expected an object`)
  const { kid, crv } = jwk
  if (typeof kid !== 'string' || kid === '') throw new CredentialError(`${where}: Expected "kid"`)
  const alg = algOfCurve.get(crv)
  if (alg === undefined) throw new CredentialError(`${where}: Expected crv P-256, P-384 or Ed25519`)
  try {
    const privateKey = createPrivateKey({ key: { ...jwk }, format: 'jwk' })
    // Exported anew from the public half: nothing private can slip into what is published.
    const publicJwk = createPublicKey(privateKey).export({ format: 'jwk' })
    return { kid, alg, privateKey, publicJwk: { ...publicJwk, kid, alg, use: 'sig' } }
  } catch (cause) {
    throw new CredentialError(`${where}: Expected a private JWK`, { cause })
  }
}

interface MintedClaims extends Record<string, unknown> {
  readonly iss: string
  readonly jti: string
  readonly iat: number
  readonly exp: number
}

function mintedClaims(
  { agent, chain, upstream, nowMs }: IssueRequest,
  { config, issuer }: { readonly config: MintConfig; readonly issuer: string },
): MintedClaims {
  const { leaf } = chain
  // SW-3: a credential never outlives any grant that it rests on.
  const expiresAtMs = Math.min(nowMs + config.ttl, chain.expiresAtMs)
  return {
    iss: issuer,
    sub: agent.id,
    client_id: agent.id,
    aud: config.audience,
    iat: Math.floor(nowMs / 1000),
    exp: Math.floor(expiresAtMs / 1000),
    jti: randomBytes(16).toString('base64url'),
    txn: leaf.txn,
    ...(config.scope.length > 0 && { scope: config.scope.join(' ') }),
    authorization_details: leaf.destinations.filter((entry) => concerns(entry, upstream)),
    purpose: leaf.purpose,
    sensitivity: leaf.sensitivity,
    grant: { jti: leaf.jti },
    ...(chain.links.length > 1 && { act: actorOf(chain.links) }),
  }
}

interface Actor {
  readonly sub: string
  readonly act?: Actor
}

/** RFC 8693 section 4.1: outermost who acts now, within it who delegated to it, in order. */
function actorOf([root, ...others]: GrantChain['links']): Actor {
  return others.reduce<Actor>((act, { agent }) => ({ sub: agent, act }), { sub: root.agent })
}

function concerns(destination: Destination, upstream: Upstream): boolean {
  return destination.locations.some((location) =>
    coversOrigin(httpOriginOf(location), upstream.origin),
  )
}

function bearer(token: string, { iss, jti, exp }: MintedClaims): Credential {
  return {
    kind: 'mint',
    digest: createHash('sha256').update(token).digest('hex').slice(0, 16),
    subject: `credential:${iss}#${jti}`,
    expiresAtMs: exp * 1000,
    slots: () => ({ headers: [['authorization', `Bearer ${token}`]], query: [] }),
    revoke: () => Promise.resolve('unsupported'),
  }
}
