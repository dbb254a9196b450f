import { createPrivateKey, sign, type KeyObject } from 'node:crypto'
import { parseCompactJws, verifySignature } from '../policy/compact-jws.ts'
import type { PublicKey } from '../policy/public-key.ts'
import {
  isJsonObject,
  parseStrictJson,
  type JsonObject,
  type JsonValue,
} from '../policy/strict-json.ts'
import type { Clock } from '../policy/types.ts'
import { genesis, type ChainHead } from './chain.ts'
import { AuditError, type AuditLog } from './log.ts'
import type { ReadCheckpoint } from './read-record.ts'

const checkpointTyp = 'audit-checkpoint+jwt'

export interface CheckpointOptions {
  /** The private JWK Set; its first key signs. Asked for every checkpoint: a mounted secret changes. */
  readonly keys: () => string
  readonly everyMs: number
  readonly instance: string
  readonly clock: Clock
  readonly onError: (error: unknown) => void
  /** Where the fleet keeps the last one of each process. Absent: only the log has them. */
  readonly store?: CheckpointStore
  /** Whether the store took it. No record waits for that. */
  readonly onStored?: (outcome: 'stored' | 'failed') => void
}

/** A copy out of reach of whoever can write the log. */
export interface CheckpointStore {
  /** Resolves with where the fleet's chain is after it, `n:h`. */
  put(checkpoint: ChainHead & { readonly instance: string; readonly sig: string }): Promise<string>
}

/**
 * Appends a signed checkpoint every so often while the log grows, and a last one at disposal. Throws `AuditError`
 * ERR_AUDIT_KEY when no key can sign now.
 */
export function startCheckpoints(log: AuditLog, options: CheckpointOptions): AsyncDisposable {
  readSigningKey(options.keys())
  let signed = log.head.seq
  let fleet: string | undefined
  const { store, instance } = options
  const put = async (checkpoint: ChainHead & { readonly sig: string }): Promise<void> => {
    try {
      fleet = await store?.put({ ...checkpoint, instance })
      options.onStored?.('stored')
    } catch {
      options.onStored?.('failed')
    }
  }
  const checkpoint = async (): Promise<void> => {
    const { head } = log
    if (head.seq === signed) return
    try {
      // Signing is synchronous: the checkpoint is the very next record, so its `prev` is what it signs.
      const { seq, hash } = head
      const sig = signCheckpoint({ seq, hash, fleet }, options)
      const records = head.seq - signed
      const appended = log.append({
        type: 'checkpoint',
        checkpoint: { seq, hash, records, ...(fleet !== undefined && { fleet }), sig },
      })
      signed = log.head.seq
      await appended
      // Not before it is in the log: the store must not know more than the log has.
      if (store) await put({ seq, hash, sig })
    } catch (error) {
      options.onError(error)
    }
  }
  const timer = setInterval(() => void checkpoint(), options.everyMs)
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await checkpoint()
    },
  }
}

/** What the signatures of a log prove. */
export interface SignatureReport {
  readonly checkpoints: number
  /** The last checkpoint: everything up to this record is as it was signed. */
  readonly signed?: { readonly seq: number; readonly ts: string }
  /** Records after the last checkpoint, other than checkpoints. */
  readonly unsigned: number
  /** A checkpoint that does not hold, or a chain without one. */
  readonly bad?: string
}

/** Where a checkpoint stands in its chain, as the chain's verifier accepted it. */
export interface SignatureCheck {
  add(record: Placed): Promise<void>
  report(): SignatureReport
}

export type Placed = ChainHead & { readonly prev: string; readonly checkpoint?: ReadCheckpoint }

/** Checks every checkpoint of a log, record by record in the order of the chain. */
export function checkSignatures(keys: ReadonlyMap<string, PublicKey>): SignatureCheck {
  let checkpoints = 0
  let inChain = 0
  let unsigned = 0
  let signed: SignatureReport['signed']
  let bad: string | undefined
  const endChain = (): void => {
    if (inChain === 0) bad ??= 'no signed checkpoint'
  }
  let isEmpty = true
  return {
    async add({ seq, prev, checkpoint }) {
      if (prev === genesis.hash && !isEmpty) {
        endChain()
        inChain = 0
        unsigned = 0
        signed = undefined
      }
      isEmpty = false
      if (!checkpoint) {
        unsigned += 1
        return
      }
      const problem = await problemOf(checkpoint, keys)
      if (problem !== undefined) {
        bad ??= `record ${seq}: ${problem}`
        return
      }
      checkpoints += 1
      inChain += 1
      unsigned = 0
      signed = { seq: checkpoint.checkpoint.seq, ts: checkpoint.ts }
    },
    report() {
      endChain()
      return {
        checkpoints,
        unsigned,
        ...(signed && { signed }),
        ...(bad !== undefined && { bad }),
      }
    },
  }
}

const maxSignatureBytes = 4096
const maxKeyFileBytes = 65_536
const signingAlgs: ReadonlyMap<unknown, string> = new Map([
  ['P-256', 'ES256'],
  ['Ed25519', 'EdDSA'],
])

/** A log that was sealed anew has other hashes, so a signature moved into it does not fit its `prev`. */
async function problemOf(
  { seq, prev, sidecar, checkpoint }: ReadCheckpoint,
  keys: ReadonlyMap<string, PublicKey>,
): Promise<string | undefined> {
  if (checkpoint.seq !== seq - 1 || checkpoint.hash !== prev) {
    return 'the checkpoint is not about the record before it'
  }
  const { instance } = sidecar
  const signed = await readSigned({ instance, ...checkpoint }, keys)
  if (typeof signed === 'string') return signed
  const isSame = signed['fleet'] === checkpoint.fleet
  return isSame ? undefined : 'the signature is about another place in the fleet'
}

/** The claims that are signed over this place in the chain of this process, or what is wrong with the signature. */
export async function readSigned(
  { instance, seq, hash, sig }: ChainHead & { readonly instance: string; readonly sig: string },
  keys: ReadonlyMap<string, PublicKey>,
): Promise<JsonObject | string> {
  const parsed = parseCompactJws(sig, { maxBytes: maxSignatureBytes })
  if (!parsed.ok) return `the signature: ${parsed.reason}`
  const { header, payload } = parsed.jws
  if (header['typ'] !== checkpointTyp) return 'the signature is not one of a checkpoint'
  const key = typeof header['kid'] === 'string' ? keys.get(header['kid']) : undefined
  if (!key) return 'the key of the signature is not known'
  const isAbout = payload['iss'] === instance && payload['seq'] === seq && payload['hash'] === hash
  if (!isAbout) return 'the signature is about another record'
  return (await verifySignature(parsed.jws, key)) ? payload : 'the signature does not verify'
}

interface SigningKey {
  readonly kid: string
  readonly alg: string
  readonly key: KeyObject
}

function signCheckpoint(
  { seq, hash, fleet }: ChainHead & { readonly fleet: string | undefined },
  { keys, instance, clock }: CheckpointOptions,
): string {
  const iat = Math.floor(clock.now() / 1000)
  const { kid, alg, key } = readSigningKey(keys())
  const header = base64url({ alg, kid, typ: checkpointTyp })
  const input = `${header}.${base64url({ iss: instance, seq, hash, fleet, iat })}`
  const digest = alg === 'EdDSA' ? null : 'sha256'
  const signature = sign(digest, Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** No message quotes the text: it is a private key. */
function readSigningKey(text: string): SigningKey {
  const parsed = parseStrictJson(Buffer.from(text), { maxBytes: maxKeyFileBytes, maxDepth: 8 })
  const jwk = parsed.ok ? firstKey(parsed.value) : undefined
  if (!isJsonObject(jwk)) throw keyError('Expected a private JWK or JWK Set')
  const { kid, crv } = jwk
  if (typeof kid !== 'string' || kid === '') throw keyError('Expected a key with "kid"')
  const alg = signingAlgs.get(crv)
  if (alg === undefined) throw keyError('Expected a key with crv P-256 or Ed25519')
  try {
    return { kid, alg, key: createPrivateKey({ key: { ...jwk }, format: 'jwk' }) }
  } catch (cause) {
    throw keyError('Expected a private key', cause)
  }
}

function firstKey(value: JsonValue): JsonValue | undefined {
  if (!isJsonObject(value) || !('keys' in value)) return value
  const { keys } = value
  return isJsonArray(keys) ? keys[0] : undefined
}

function isJsonArray(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value)
}

function keyError(message: string, cause?: unknown): AuditError {
  return new AuditError('ERR_AUDIT_KEY', `The key for audit checkpoints: ${message}`, { cause })
}

function base64url(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
