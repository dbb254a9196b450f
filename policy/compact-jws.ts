import { createHash } from 'node:crypto'
import { flattenedVerify } from 'jose/jws/flattened/verify'
import type { PublicKey } from './public-key.ts'
import { isJsonObject, parseStrictJson, type JsonObject } from './strict-json.ts'

/** A compact JWS that has one reading. Its signature is not verified yet. */
export interface CompactJws {
  readonly header: JsonObject
  readonly payload: JsonObject
  readonly signingInput: Uint8Array
  readonly signature: Uint8Array
  /** The three parts as they came. Token bytes: for verifying only, never for a record. */
  readonly segments: readonly [header: string, payload: string, signature: string]
  /**
   * base64url(SHA-256(signing input)). Names the token: a digest of the whole text would not, because one ECDSA
   * signature has a twin, (r, n - s).
   */
  readonly s256: string
  /** First 16 hex digits of the same hash: for audit. */
  readonly digest16: string
}

export type CompactJwsResult =
  | { readonly ok: true; readonly jws: CompactJws }
  /** `reason` holds no byte of the token. */
  | { readonly ok: false; readonly reason: string }

const maxDepth = 16

/**
 * Takes a compact JWS apart before any cryptography. The JOSE library behind it tolerates padding, spaces, trailing
 * base64 bits, repeated members, a BOM and `1e999`: two readers of such a token may see two tokens.
 */
export function parseCompactJws(
  compact: string,
  options: { readonly maxBytes: number },
): CompactJwsResult {
  if (compact.length > options.maxBytes) {
    return refuse(`the token is longer than ${options.maxBytes} bytes`)
  }
  const [header, payload, signature, ...more] = compact.split('.', 4)
  if (!header || !payload || !signature || more.length > 0) {
    return refuse('the token has not three parts')
  }
  const headerBytes = decodeBase64url(header)
  const payloadBytes = decodeBase64url(payload)
  const signatureBytes = decodeBase64url(signature)
  if (!headerBytes || !payloadBytes || !signatureBytes) {
    return refuse('the token is not canonical base64url')
  }
  const readHeader = parseStrictJson(headerBytes, { maxBytes: options.maxBytes, maxDepth })
  if (!readHeader.ok) return refuse(`header: ${readHeader.reason}`)
  if (!isJsonObject(readHeader.value)) return refuse('header: not an object')
  const readPayload = parseStrictJson(payloadBytes, { maxBytes: options.maxBytes, maxDepth })
  if (!readPayload.ok) return refuse(`payload: ${readPayload.reason}`)
  if (!isJsonObject(readPayload.value)) return refuse('payload: not an object')

  const signingInput = Buffer.from(`${header}.${payload}`, 'latin1')
  const digest = createHash('sha256').update(signingInput).digest()
  return {
    ok: true,
    jws: {
      header: readHeader.value,
      payload: readPayload.value,
      signingInput,
      signature: signatureBytes,
      segments: [header, payload, signature],
      s256: digest.toString('base64url'),
      digest16: digest.toString('hex', 0, 8),
    },
  }
}

/** Whether the key made the signature, with an algorithm that is this key's. Anything unforeseen is a no. */
export async function verifySignature(jws: CompactJws, key: PublicKey): Promise<boolean> {
  const { alg } = jws.header
  if (typeof alg !== 'string' || !key.algs.includes(alg)) return false
  // DER and truncated forms end here, before the engine is asked what it makes of them.
  if (jws.signature.byteLength !== key.signatureBytes) return false
  const [header, payload, signature] = jws.segments
  try {
    await flattenedVerify({ protected: header, payload, signature }, key.key, { algorithms: [alg] })
    return true
  } catch {
    return false
  }
}

/** RFC 7515 section 2 without the slack: re-encoding must give the same text, so trailing bits are zero. */
function decodeBase64url(text: string): Buffer | undefined {
  if (!/^[A-Za-z0-9_-]+$/.test(text)) return undefined
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}

function refuse(reason: string): CompactJwsResult {
  return { ok: false, reason }
}
