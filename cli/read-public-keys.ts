import { readTextFile } from '../config/read-text-file.ts'
import { parseApproverKeys } from '../policy/approver.ts'
import type { PublicKey } from '../policy/public-key.ts'

const maxJwksBytes = 1024 * 1024

/** The public keys of a JWK Set file by `kid`. Throws when there is none to use. */
export function readPublicKeys(path: string): ReadonlyMap<string, PublicKey> {
  try {
    const text = readTextFile(path, { maxBytes: maxJwksBytes })
    return new Map(parseApproverKeys(JSON.parse(text)).map((key) => [key.kid, key]))
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : 'cannot be read'
    throw new Error(`the keys of ${path}: ${why}`, { cause })
  }
}
