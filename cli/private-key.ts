import { importJWK, SignJWT, type JWK } from 'jose'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'

/** A private JWK with what the header of its signatures says. */
export interface PrivateKey {
  readonly path: string
  readonly jwk: JWK
  readonly kid: string
  readonly alg: string
}

/** Reads a private JWK, or the first of a JWK Set. Throws `TypeError`; the message holds nothing of the key. */
export function readPrivateKey(path: string): PrivateKey {
  const jwk = firstKey(parseJson(readText(path), path))
  const { kid, alg, d } = jwk
  if (typeof kid === 'string' && typeof alg === 'string' && d !== undefined) {
    return { path, jwk, kid, alg }
  }
  throw new TypeError(`${path}: Expected a private JWK with kid and alg`)
}

/** Signs claims as a compact JWS of this `typ`. Throws `TypeError` when the key does not fit its algorithm. */
export async function signClaims(
  claims: Readonly<Record<string, unknown>>,
  { key, typ }: { readonly key: PrivateKey; readonly typ: string },
): Promise<string> {
  const { path, jwk, kid, alg } = key
  try {
    return await new SignJWT(claims)
      .setProtectedHeader({ alg, kid, typ })
      .sign(await importJWK(jwk, alg))
  } catch (cause) {
    // The error of the library is not shown: it is about a private key.
    throw new TypeError(`${path}: Expected a private JWK that fits its alg`, { cause })
  }
}

const maxKeyBytes = 64 * 1024

function readText(path: string): string {
  try {
    return readTextFile(path, { maxBytes: maxKeyBytes })
  } catch (cause) {
    if (cause instanceof TextFileError) throw new TypeError(`${path}: ${cause.message}`, { cause })
    throw cause
  }
}

/** A JSON error quotes the text, which here is a private key. */
function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new TypeError(`${path}: not JSON`)
  }
}

function firstKey(value: unknown): JWK {
  if (typeof value !== 'object' || value === null) return {}
  if (!('keys' in value)) return value
  const keys: unknown = value.keys
  return Array.isArray(keys) && typeof keys[0] === 'object' ? { ...keys[0] } : {}
}
