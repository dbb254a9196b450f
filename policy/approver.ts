import type { ApproverConfig, DelegationConfig } from '../config/schema.ts'
import { canonicalOrigin, canonicalUrl, httpOriginOf } from './location.ts'
import { importPublicKey, type PublicKey } from './public-key.ts'
import type { Sensitivity } from './types.ts'

/** Who may sign grants, and how far each may go. A grant beyond its signer's ceilings is invalid as a whole. */
export interface ApproverRegistry {
  /** The authority of exactly this `iss`. */
  readonly find: (iss: string) => Approver | undefined
  /** Who may sign the grants of sub-agents, and never a root. Absent: only approvers do. */
  readonly delegator?: Approver
}

export interface Approver {
  readonly iss: string
  readonly keys: ReadonlyMap<string, PublicKey>
  readonly maxTtlMs: number
  readonly maxSensitivity: Sensitivity
  /** Absent: every purpose. */
  readonly purposes?: ReadonlySet<string>
  /** Canonical origins, perhaps with a `*` label, and whole URLs of MCP servers. Absent: every location. */
  readonly locations?: readonly string[]
}

export interface ApproverKey extends PublicKey {
  readonly kid: string
}

/** An approver's keys or ceilings cannot be used. The message names what, and holds no key material. */
export class ApproverError extends Error {
  override readonly name = 'ApproverError'
  readonly code = 'ERR_APPROVER_INVALID'
}

/**
 * Builds the registry from the configuration and the parsed key set of each `iss`. Throws `ApproverError`: with an
 * authority half understood, no grant is safe to accept.
 */
export function createApproverRegistry(
  approvers: readonly ApproverConfig[],
  keysByIss: ReadonlyMap<string, readonly ApproverKey[]>,
  { delegation }: { readonly delegation?: DelegationConfig | undefined } = {},
): ApproverRegistry {
  const byIss = new Map<string, Approver>()
  for (const config of approvers) {
    if (byIss.has(config.iss)) throw new ApproverError(`Approver "${config.iss}" is listed twice`)
    const keys = keysByIss.get(config.iss)
    if (!keys) throw new ApproverError(`Approver "${config.iss}" has no keys`)
    byIss.set(config.iss, createApprover(config, keys))
  }
  const find = (iss: string): Approver | undefined => byIss.get(iss)
  if (!delegation) return { find }
  return { find, delegator: createDelegator(delegation, { byIss, keysByIss }) }
}

/**
 * Reads a public JWK Set. Every key needs `kid` and `alg`, and one bad key refuses the set: an operator who lists a key
 * means it. Throws `ApproverError`.
 */
export function parseApproverKeys(jwks: unknown): readonly ApproverKey[] {
  if (!isRecord(jwks) || !Array.isArray(jwks['keys'])) {
    throw new ApproverError('Expected a JWK Set: an object with the array "keys"')
  }
  const entries: readonly unknown[] = jwks['keys']
  if (entries.length === 0) throw new ApproverError('Expected at least one key in the JWK Set')
  if (entries.length > maxKeys) throw new ApproverError(`Expected at most ${maxKeys} keys`)
  const keys = new Map<string, ApproverKey>()
  for (const [index, entry] of entries.entries()) {
    const key = parseKey(entry, `keys[${index}]`)
    if (keys.has(key.kid)) throw new ApproverError(`keys[${index}]: its kid stands twice`)
    keys.set(key.kid, key)
  }
  return [...keys.values()]
}

const maxKeys = 64
const maxKidBytes = 256
const grantAlgs: ReadonlySet<string> = new Set([
  'ES256',
  'ES384',
  'EdDSA',
  'Ed25519',
  'PS256',
  'RS256',
])

function parseKey(entry: unknown, where: string): ApproverKey {
  if (!isRecord(entry)) throw new ApproverError(`${where}: Expected an object`)
  const { kid, alg, use } = entry
  if (typeof kid !== 'string' || kid === '' || kid.length > maxKidBytes) {
    throw new ApproverError(`${where}: Expected "kid", text of 1 to ${maxKidBytes} characters`)
  }
  if (typeof alg !== 'string' || !grantAlgs.has(alg)) {
    throw new ApproverError(`${where}: Expected "alg", one of ${[...grantAlgs].join(', ')}`)
  }
  if (use !== undefined && use !== 'sig') {
    throw new ApproverError(`${where}: Expected "use" to be "sig" or absent`)
  }
  const imported = importPublicKey(entry)
  if (!imported.ok) throw new ApproverError(`${where}: Cannot use the key: ${imported.reason}`)
  return { kid, ...imported.key }
}

function createApprover(config: ApproverConfig, keys: readonly ApproverKey[]): Approver {
  const { iss, purposes, locations } = config
  return {
    iss,
    keys: new Map(keys.map((key) => [key.kid, key])),
    maxTtlMs: config.maxTtl,
    maxSensitivity: config.maxSensitivity,
    ...(purposes && { purposes: new Set(purposes) }),
    ...(locations && { locations: locations.map((location) => parseCeiling(location, iss)) }),
  }
}

/** Its ceilings are the parents'. A key that it shared with an approver could sign roots. */
function createDelegator(
  { iss, maxTtl }: DelegationConfig,
  {
    byIss,
    keysByIss,
  }: {
    readonly byIss: ReadonlyMap<string, Approver>
    readonly keysByIss: ReadonlyMap<string, readonly ApproverKey[]>
  },
): Approver {
  if (byIss.has(iss)) throw new ApproverError(`Delegation authority "${iss}" is an approver`)
  const keys = keysByIss.get(iss)
  if (!keys) throw new ApproverError(`Delegation authority "${iss}" has no keys`)
  for (const approver of byIss.values()) {
    for (const { key } of approver.keys.values()) {
      if (keys.some((own) => own.key.equals(key))) {
        throw new ApproverError(
          `Delegation authority "${iss}": one of its keys is of the approver "${approver.iss}"`,
        )
      }
    }
  }
  return {
    iss,
    keys: new Map(keys.map((key) => [key.kid, key])),
    maxTtlMs: maxTtl,
    maxSensitivity: 'restricted',
  }
}

function parseCeiling(location: string, iss: string): string {
  const origin = canonicalOrigin(location, ['http', 'https', 'ws', 'wss'])
  const canonical = origin === undefined ? canonicalUrl(location) : httpOriginOf(origin)
  if (canonical !== undefined) return canonical
  throw new ApproverError(
    `Approver "${iss}": Expected a location such as "https://api.example.org" or "https://*.example.org"`,
  )
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
