import { checkSignatures, type SignatureCheck } from '../audit/checkpoint.ts'
import { readTextFile } from '../config/read-text-file.ts'
import { parseApproverKeys } from '../policy/approver.ts'

/** Opens the public keys of a JWK Set file. Gives a fresh check for each log. Throws when there is none to use. */
export function signaturesBy(path: string): () => SignatureCheck {
  try {
    const text = readTextFile(path, { maxBytes: maxJwksBytes })
    const keys = new Map(parseApproverKeys(JSON.parse(text)).map((key) => [key.kid, key]))
    return () => checkSignatures(keys)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : 'cannot be read'
    throw new Error(`the keys of ${path}: ${why}`, { cause })
  }
}

const maxJwksBytes = 1024 * 1024
