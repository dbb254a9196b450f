import { importPublicKey, type PublicKey } from '../policy/public-key.ts'
import {
  isJsonObject,
  parseStrictJson,
  type JsonObject,
  type JsonValue,
} from '../policy/strict-json.ts'

/** What one trust domain vouches with: the JWT keys of its SPIFFE bundle. */
export interface TrustBundle {
  readonly keys: ReadonlyMap<string, PublicKey>
  /** `spiffe_sequence`: an update of the same source with a lower one is old. */
  readonly sequence?: bigint
  /** `spiffe_refresh_hint`, clamped to 10 s .. 1 h. */
  readonly refreshHintMs?: number
  /** Why JWT keys of the document are not among `keys`, one text each. */
  readonly ignored: readonly string[]
}

export type TrustBundleResult =
  | { readonly ok: true; readonly bundle: TrustBundle }
  | { readonly ok: false; readonly reason: string }

/** A bundle document of more bytes is refused. */
export const maxBundleBytes = 1024 * 1024

/**
 * Reads a SPIFFE bundle document (SPIFFE Trust Domain and Bundle, section 4). Keys of other uses and unusable keys are
 * left out; a document that is malformed, or has one `kid` for two keys, is refused whole, so that the old one stays.
 */
export function parseTrustBundle(bytes: Uint8Array): TrustBundleResult {
  const parsed = parseStrictJson(bytes, {
    maxBytes: maxBundleBytes,
    maxDepth: 16,
    // `spiffe_sequence` has 64 bits.
    largeIntegersAsText: true,
  })
  if (!parsed.ok) return refuse(`the bundle document is refused: ${parsed.reason}`)
  const document = parsed.value
  if (!isJsonObject(document)) return refuse('the bundle document is not an object')
  const { keys: entries, spiffe_sequence: sequenceClaim } = document
  if (!isJsonArray(entries)) return refuse('the bundle document has no array "keys"')
  if (entries.length > maxEntries) return refuse(`the bundle has more than ${maxEntries} keys`)

  const sequence = readSequence(sequenceClaim)
  if (sequence === null) return refuse('"spiffe_sequence" is not an integer of 64 bits')
  const read = readKeys(entries)
  if (!read) return refuse('the bundle has one "kid" for two keys')
  const refreshHintMs = readRefreshHint(document['spiffe_refresh_hint'])
  return {
    ok: true,
    bundle: {
      ...read,
      ...(sequence !== undefined && { sequence }),
      ...(refreshHintMs !== undefined && { refreshHintMs }),
    },
  }
}

const maxEntries = 256
const maxKidBytes = 256
const minRefreshMs = 10_000
const maxRefreshMs = 3_600_000

/** Undefined when two JWT keys, usable or not, share a `kid`: a token could then mean either. */
function readKeys(
  entries: readonly JsonValue[],
): Pick<TrustBundle, 'keys' | 'ignored'> | undefined {
  const keys = new Map<string, PublicKey>()
  const seen = new Set<string>()
  const ignored: string[] = []
  for (const [index, entry] of entries.entries()) {
    // Section 4.2.2: without `use` a key is for nothing, and `x509-svid` keys are certificates.
    if (!isJsonObject(entry) || entry['use'] !== 'jwt-svid') continue
    const kid = readKid(entry)
    if (kid === undefined) {
      ignored.push(`keys[${index}]: it has no kid`)
      continue
    }
    if (seen.has(kid)) return undefined
    seen.add(kid)
    const imported = importPublicKey(entry)
    if (!imported.ok) ignored.push(`keys[${index}]: ${imported.reason}`)
    else if (!imported.key.algs.some((alg) => svidAlgs.has(alg))) {
      ignored.push(`keys[${index}]: its algorithm is none of JWT-SVID`)
    } else keys.set(kid, imported.key)
  }
  return { keys, ignored }
}

/** JWT-SVID section 2.1. EdDSA is not among them. */
export const svidAlgs: ReadonlySet<string> = new Set([
  'RS256',
  'RS384',
  'RS512',
  'ES256',
  'ES384',
  'ES512',
  'PS256',
  'PS384',
  'PS512',
])

function readKid({ kid }: JsonObject): string | undefined {
  return typeof kid === 'string' && kid !== '' && kid.length <= maxKidBytes ? kid : undefined
}

/** Null when it is there and makes no sense. */
function readSequence(claim: JsonValue | undefined): bigint | undefined | null {
  if (claim === undefined) return undefined
  const digits = typeof claim === 'number' ? String(claim) : claim
  if (typeof digits !== 'string' || !/^\d{1,20}$/.test(digits)) return null
  const sequence = BigInt(digits)
  return sequence < 1n << 64n ? sequence : null
}

/** A hint that makes no sense is no hint: it must not stop an update of keys. */
function readRefreshHint(claim: JsonValue | undefined): number | undefined {
  if (typeof claim !== 'number' || !Number.isInteger(claim) || claim <= 0) return undefined
  return Math.min(Math.max(claim * 1000, minRefreshMs), maxRefreshMs)
}

function isJsonArray(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value)
}

function refuse(reason: string): TrustBundleResult {
  return { ok: false, reason }
}
