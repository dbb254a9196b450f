import { rank } from './cedar-request.ts'
import { deny } from './denial.ts'
import { coversOrigin, httpOriginOf } from './location.ts'
import { grantChain, type GrantClaims } from './grant.ts'
import { coversPattern } from './path-pattern.ts'
import { matchesSpiffePattern } from './spiffe-id.ts'
import type { ArgumentConstraint, Denial, Destination, Grant, GrantChain } from './types.ts'

/**
 * The chain of verified grants, root first, or why they are none. Each grant must name exactly those before it, and its
 * parent must delegate to it and be as wide. That a request is held to every link comes on top.
 */
export function linkGrants(links: readonly [Grant, ...Grant[]]): GrantChain | Denial {
  for (const [index, link] of links.entries()) {
    const above = links.slice(0, index)
    const reason = findMisfit(link, above)
    if (reason !== undefined) {
      return deny('task-grant-invalid', `link ${index + 1} of ${links.length}: ${reason}`)
    }
  }
  return grantChain(...links)
}

/**
 * Where a child is wider than its parent, in the words of the claims; undefined when it is not. A destination counts as
 * covered only by one entry of the parent: what two of them allow together is refused here.
 */
export function findWidening(child: Grant, parent: Grant): string | undefined {
  if (child.audience !== parent.audience) return 'claim aud: is not that of the parent'
  if (child.expiresAtMs > parent.expiresAtMs) return 'claim exp: is after that of the parent'
  if (child.notBeforeMs < parent.notBeforeMs) return 'claim nbf: is before that of the parent'
  if (rank(child.sensitivity) > rank(parent.sensitivity)) {
    return 'claim sensitivity: is above that of the parent'
  }
  if (child.purpose !== parent.purpose) return 'claim purpose: is not that of the parent'
  const { onBehalfOf: whom } = child
  if (whom?.iss !== parent.onBehalfOf?.iss || whom?.sub !== parent.onBehalfOf?.sub) {
    return 'claim obo: is not that of the parent'
  }
  return findWiderDelegation(child, parent) ?? findWiderDestination(child, parent)
}

/** The claims by which a grant hangs on this one. */
export function lineageBelow({
  jti,
  approver,
  txn,
  agent,
  s256,
  parent,
}: Grant): Required<Pick<GrantClaims, 'prf' | 'anc'>> {
  const above = parent?.ancestors ?? []
  return {
    prf: { jti, iss: approver, s256 },
    anc: [...above, { jti, txn, agent }].map((one) => ({
      jti: one.jti,
      txn: one.txn,
      sub: one.agent,
    })),
  }
}

/** DL-1: the grant that is used, and at most seven above it. */
const maxLinks = 8

function findMisfit(link: Grant, above: readonly Grant[]): string | undefined {
  const parent = above.at(-1)
  if (!parent) return link.parent ? 'its ancestors are not all there' : undefined
  if (above.length >= maxLinks) return `the chain has more than ${maxLinks} links`
  return (
    findWrongLineage(link, above) ??
    findRepeated(link, above) ??
    findUndelegated(link, parent) ??
    findWidening(link, parent)
  )
}

/** The parent is meant by its signing input: another grant of the same task is not what was narrowed. */
function findWrongLineage({ parent }: Grant, above: readonly Grant[]): string | undefined {
  const nearest = above.at(-1)
  if (!parent || !nearest) return 'it hangs on no grant'
  const { jti, iss, s256, ancestors } = parent
  if (jti !== nearest.jti || iss !== nearest.approver || s256 !== nearest.s256) {
    return 'claim prf: is not its parent'
  }
  const isSame = above.every(({ jti: id, txn, agent }, index) => {
    const named = ancestors[index]
    return named?.jti === id && named.txn === txn && named.agent === agent
  })
  return isSame && ancestors.length === above.length
    ? undefined
    : 'claim anc: is not the chain above it'
}

/** DL-4, DL-5: authority that came back to where it was would outlive its revocation there, and have two names. */
function findRepeated(link: Grant, above: readonly Grant[]): string | undefined {
  if (above.some(({ agent }) => agent === link.agent)) return 'claim sub: is in the chain already'
  if (above.some(({ txn }) => txn === link.txn)) return 'claim txn: is in the chain already'
  return above.some(({ jti }) => jti === link.jti)
    ? 'claim jti: is in the chain already'
    : undefined
}

/** The parent alone is asked: what it delegates, `findWidening()` holds below what every grant above it does. */
function findUndelegated(link: Grant, { delegation }: Grant): string | undefined {
  if (!delegation) return 'its parent allows no delegation'
  if (delegation.maxDepth < 1) return 'its parent allows no further delegation'
  if (!delegation.to.some((pattern) => matchesSpiffePattern(link.agent, pattern))) {
    return 'claim sub: its parent does not delegate to this agent'
  }
  return delegation.issuers?.includes(link.approver) === false
    ? 'claim iss: its parent does not delegate by this issuer'
    : undefined
}

function findWiderDelegation(
  { delegation: child }: Grant,
  { delegation: parent }: Grant,
): string | undefined {
  if (!child) return undefined
  if (!parent || child.maxDepth >= parent.maxDepth) {
    return 'claim delegation.max_depth: is not below that of the parent'
  }
  if (!child.to.every((to) => parent.to.some((wide) => coversPattern(wide, to)))) {
    return 'claim delegation.to: is wider than that of the parent'
  }
  const { issuers } = parent
  if (issuers && !child.issuers?.every((issuer) => issuers.includes(issuer))) {
    return 'claim delegation.issuers: is wider than that of the parent'
  }
  return undefined
}

function findWiderDestination(child: Grant, parent: Grant): string | undefined {
  for (const [index, entry] of child.destinations.entries()) {
    const compared = parent.destinations
      .filter(({ type }) => type === entry.type)
      .map((wide) => widerMembers(entry, wide))
    if (compared.some((members) => members.length === 0)) continue
    const claim = `claim authorization_details[${index}]`
    // That of the entry which comes nearest: what else is wider is wider than what was not meant.
    const [nearest] = compared.toSorted((a, b) => a.length - b.length)
    if (!nearest) return `${claim}: the parent has no destination of this type`
    return `${claim}: is wider than each destination of the parent, than the nearest in ${nearest.join(', ')}`
  }
  return undefined
}

type Member = 'locations' | 'actions' | 'paths' | 'query' | 'tools' | 'args'

/** The members in which an entry allows more than the other of its type. None: whatever it matches, the other does. */
function widerMembers(narrow: Destination, wide: Destination): readonly Member[] {
  if (narrow.type === 'http_api' && wide.type === 'http_api') {
    return uncovered({
      locations: isCovered(narrow.locations, wide.locations, coversOrigin),
      actions: isCovered(narrow.actions, wide.actions, isEqual),
      paths: isCovered(narrow.paths, wide.paths, coversPattern),
      query: wide.query !== 'deny' || narrow.query === 'deny',
    })
  }
  if (narrow.type === 'ws' && wide.type === 'ws') {
    return uncovered({
      locations: isCovered(narrow.locations, wide.locations, coversWebSocket),
      paths: isCovered(narrow.paths, wide.paths, coversPattern),
    })
  }
  if (narrow.type === 'mcp_server' && wide.type === 'mcp_server') {
    return uncovered({
      locations: isCovered(narrow.locations, wide.locations, isEqual),
      tools: isCovered(narrow.tools, wide.tools, coversTool),
      args: coversArguments(narrow.args ?? {}, wide.args ?? {}),
    })
  }
  return ['locations']
}

function uncovered(covered: Readonly<Partial<Record<Member, boolean>>>): readonly Member[] {
  const order: readonly Member[] = ['locations', 'actions', 'paths', 'query', 'tools', 'args']
  return order.filter((member) => covered[member] === false)
}

function isCovered(
  narrow: readonly string[],
  wide: readonly string[],
  covers: (wide: string, narrow: string) => boolean,
): boolean {
  return narrow.every((one) => wide.some((other) => covers(other, one)))
}

function isEqual(wide: string, narrow: string): boolean {
  return wide === narrow
}

function coversWebSocket(wide: string, narrow: string): boolean {
  return coversOrigin(httpOriginOf(wide), httpOriginOf(narrow))
}

/** Exact, or with one `*` at the end. */
function coversTool(wide: string, narrow: string): boolean {
  if (!wide.endsWith('*')) return wide === narrow
  const prefix = narrow.endsWith('*') ? narrow.slice(0, -1) : narrow
  return prefix.startsWith(wide.slice(0, -1))
}

type Constraints = Readonly<Record<string, ArgumentConstraint>>

function coversArguments(narrow: Constraints, wide: Constraints): boolean {
  return Object.entries(wide).every(([name, constraint]) => {
    const own = Object.hasOwn(narrow, name) ? narrow[name] : undefined
    return own !== undefined && implies(own, constraint)
  })
}

/** Whether every value that holds to the narrow constraint holds to the wide one. A list is judged value by value. */
function implies(narrow: ArgumentConstraint, wide: ArgumentConstraint): boolean {
  const { enum: values } = wide
  if (values && !narrow.enum?.every((value) => values.includes(value))) return false
  return (
    (wide.prefix === undefined || impliesPrefix(narrow, wide.prefix)) &&
    (wide.max === undefined || impliesMax(narrow, wide.max))
  )
}

function impliesPrefix({ prefix, enum: values }: ArgumentConstraint, wide: string): boolean {
  if (prefix?.startsWith(wide) === true) return true
  return values?.every((value) => typeof value === 'string' && value.startsWith(wide)) ?? false
}

function impliesMax({ max, enum: values }: ArgumentConstraint, wide: number): boolean {
  if (max !== undefined && max <= wide) return true
  return values?.every((value) => typeof value === 'number' && value <= wide) ?? false
}
