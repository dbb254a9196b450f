import type { ApproverRegistry, Approver } from './approver.ts'
import { rank } from './cedar-request.ts'
import { parseCompactJws, verifySignature, type CompactJws } from './compact-jws.ts'
import { deny } from './denial.ts'
import { isWithinLocations } from './destination.ts'
import { grantTyp, parseGrantClaims, type ReadGrantClaims } from './grant-claims.ts'
import type { PublicKey } from './public-key.ts'
import type { JsonObject } from './strict-json.ts'
import { chainSubjects } from './subject.ts'
import type { Agent, Ancestor, Denial, Grant, GrantChain } from './types.ts'

export type { GrantClaims } from './grant-claims.ts'

export interface VerifyGrantOptions {
  readonly approvers: ApproverRegistry
  /** What `aud` must be, byte for byte. */
  readonly audience: string
  readonly clockSkewMs: number
  /** No grant may live longer than this, whoever signs. */
  readonly maxTtlMs: number
  /** The vocabulary of purposes. Absent: every well-formed purpose. */
  readonly purposes?: readonly string[]
  /** Epoch milliseconds. */
  readonly nowMs: number
}

/**
 * Verifies a compact `task-grant+jwt`. Cheap checks come first and the signature late, so that garbage costs
 * microseconds. One that has expired verifies too: only its holder may learn that (TG-9), and `decide()` says it, on
 * every request.
 */
export async function verifyGrant(
  compact: string,
  options: VerifyGrantOptions,
): Promise<Grant | Denial> {
  const parsed = parseCompactJws(compact, { maxBytes: maxGrantBytes })
  if (!parsed.ok) return invalid(parsed.reason)
  const { jws } = parsed
  const header = readHeader(jws.header)
  if (typeof header === 'string') return invalid(header)
  const read = parseGrantClaims(jws.payload)
  if (!read.ok) return invalid(read.reason)
  const { claims } = read

  const approver = findSigner(claims, options.approvers)
  if (!approver) return invalid('its issuer is not an approver')
  const key = approver.keys.get(header.kid)
  if (!key) return invalid('its key is not one of this approver')
  if (!key.algs.includes(header.alg)) return invalid('its algorithm is not that of the key')
  const problem =
    findProblem(claims, options) ??
    findExcess(claims, { approver, options }) ??
    (await forgery(jws, key))
  if (problem !== undefined) return invalid(problem)
  return toGrant(claims, { kid: header.kid, s256: jws.s256 })
}

/** The chain of these grants, root first: of a root, that one alone. Says nothing of whether they fit: `linkGrants()` does. */
export function grantChain(root: Grant, ...descendants: readonly Grant[]): GrantChain {
  const links: GrantChain['links'] = [root, ...descendants]
  return {
    links,
    leaf: descendants.at(-1) ?? root,
    signOffs: [],
    expiresAtMs: Math.min(...links.map(({ expiresAtMs }) => expiresAtMs)),
    subjects: chainSubjects(links),
  }
}

/**
 * Refuses an agent that is not the grantee, and a grant that its own grantee signed: who approves and who acts are two.
 */
export function checkGrantHolder(chain: GrantChain, agent: Agent): Denial | undefined {
  if (chain.leaf.agent !== agent.id) return invalid('its subject is another agent')
  for (const { approver, agent: grantee, onBehalfOf } of chain.links) {
    if (approver === grantee || approver === agent.id) return invalid('its approver is its subject')
    if (onBehalfOf?.sub === grantee) return invalid('it is on behalf of its own subject')
  }
  return undefined
}

/** The delegation authority signs for sub-agents alone: without a parent, its signature is nobody's. */
function findSigner(
  { iss, prf }: ReadGrantClaims,
  { find, delegator }: ApproverRegistry,
): Approver | undefined {
  return find(iss) ?? (prf && delegator?.iss === iss ? delegator : undefined)
}

/** TG-1. The header of a request is smaller still; this bounds grants from a store and from files. */
const maxGrantBytes = 8192
const hardMaxTtlMs = 24 * 60 * 60 * 1000

/** Exactly `alg`, `kid`, `typ`: `jwk`, `jku`, `x5u`, `crit`, `b64`, `zip` are all absent by that. */
function readHeader(header: JsonObject): { alg: string; kid: string } | string {
  const { alg, kid, typ, ...rest } = header
  if (typ !== grantTyp) return `header: typ is not "${grantTyp}"`
  if (Object.keys(rest).length > 0) return 'header: has more members than alg, kid and typ'
  if (typeof alg !== 'string') return 'header: alg is not text'
  if (typeof kid !== 'string' || kid === '' || kid.length > 256) return 'header: kid is not text'
  return { alg, kid }
}

function findProblem(claims: ReadGrantClaims, options: VerifyGrantOptions): string | undefined {
  const { iat, nbf = iat, exp } = claims
  const latestMs = options.nowMs + options.clockSkewMs
  if (claims.aud !== options.audience) return 'claim aud: is not this proxy'
  if (!claims.prf !== !claims.anc) return 'claims prf and anc: one without the other'
  if (options.purposes && !options.purposes.includes(claims.purpose)) {
    return 'claim purpose: is not in the vocabulary'
  }
  if (exp <= iat || exp <= nbf) return 'claim exp: is not after iat and nbf'
  if (iat * 1000 > latestMs) return 'claim iat: is in the future'
  if (nbf * 1000 > latestMs) return 'claim nbf: is in the future'
  if ((exp - iat) * 1000 > Math.min(options.maxTtlMs, hardMaxTtlMs))
    return 'claim exp: too far ahead'
  return undefined
}

/** Beyond the ceilings of its signer a grant is invalid as a whole: clipped, it would be what nobody approved. */
function findExcess(
  claims: ReadGrantClaims,
  { approver, options }: { readonly approver: Approver; readonly options: VerifyGrantOptions },
): string | undefined {
  if ((claims.exp - claims.iat) * 1000 > approver.maxTtlMs) {
    return 'claim exp: beyond what this approver may sign'
  }
  if (rank(claims.sensitivity) > rank(approver.maxSensitivity)) {
    return 'claim sensitivity: beyond what this approver may sign'
  }
  if (approver.purposes && !approver.purposes.has(claims.purpose)) {
    return 'claim purpose: beyond what this approver may sign'
  }
  const { locations } = approver
  if (
    locations &&
    !claims.authorization_details.every((destination) => isWithinLocations(destination, locations))
  ) {
    return 'claim authorization_details: a location beyond what this approver may sign'
  }
  return options.audience === approver.iss ? 'claim iss: is this proxy itself' : undefined
}

async function forgery(jws: CompactJws, key: PublicKey): Promise<string | undefined> {
  return (await verifySignature(jws, key)) ? undefined : 'its signature does not verify'
}

function toGrant(
  claims: ReadGrantClaims,
  { kid, s256 }: { readonly kid: string; readonly s256: string },
): Grant {
  const { purpose_text: purposeText, obo, delegation, prf, anc } = claims
  return {
    approver: claims.iss,
    kid,
    jti: claims.jti,
    txn: claims.txn,
    agent: claims.sub,
    audience: claims.aud,
    issuedAtMs: claims.iat * 1000,
    notBeforeMs: (claims.nbf ?? claims.iat) * 1000,
    expiresAtMs: claims.exp * 1000,
    purpose: claims.purpose,
    ...(purposeText !== undefined && { purposeText }),
    sensitivity: claims.sensitivity,
    destinations: claims.authorization_details,
    ...(obo && { onBehalfOf: obo }),
    ...(delegation && { delegation: toDelegation(delegation) }),
    ...(prf && anc && { parent: { ...prf, ancestors: anc.map(toAncestor) } }),
    s256,
  }
}

function toDelegation(
  delegation: NonNullable<ReadGrantClaims['delegation']>,
): NonNullable<Grant['delegation']> {
  const { max_depth: maxDepth, to, issuers } = delegation
  return { maxDepth, to, ...(issuers && { issuers }) }
}

function toAncestor({ jti, txn, sub }: NonNullable<ReadGrantClaims['anc']>[number]): Ancestor {
  return { jti, txn, agent: sub }
}

function invalid(detail: string): Denial {
  return deny('task-grant-invalid', detail)
}
