import type { Agent, GrantChain, Upstream } from '../policy/types.ts'

/**
 * The contract of every issuer kind (identity.md SW-1 to SW-7). A credential belongs to one task and one upstream
 * and never crosses to another; the agent never sees it.
 */
export interface Issuer {
  readonly kind: 'inject' | 'mint' | 'none'
  readonly revocationClass: RevocationClass
  /** Header and query slots that `inject()` writes: the proxy takes the agent's values out of them first. */
  readonly slots: Slots
  /** Issues or refuses with a `CredentialError`. `nowMs` is epoch milliseconds. */
  issue(request: IssueRequest): Promise<Credential>
}

/** R0: only the proxy stops it. R1: it expires. R2: a revoke endpoint is called. R3: the upstream asks us. */
export type RevocationClass = 'R0' | 'R1' | 'R2' | 'R3'

export interface Slots {
  /** Lower case. */
  readonly headers: readonly string[]
  readonly query: readonly string[]
}

export interface IssueRequest {
  readonly agent: Agent
  readonly chain: GrantChain
  readonly upstream: Upstream
  readonly nowMs: number
}

/** What the upstream accepts. Holders print as `[credential]`: the secret is private to the implementation. */
export interface Credential {
  readonly kind: Issuer['kind']
  /** First 16 hex digits of a SHA-256 that identifies the credential without revealing it; '-' when there is none. */
  readonly digest: string
  /** What a revocation of this one alone names: `credential:<iss>#<jti>`. Absent where it has no such name. */
  readonly subject?: string
  /** Epoch milliseconds; Infinity for a static key. */
  readonly expiresAtMs: number
  /** Header pairs and query pairs to write last, once. Called once per forwarded request. */
  slots(): InjectedSlots
  /** Ends it at its source, where the class allows. Never rejects: says what came of it. */
  revoke(): Promise<'revoked' | 'already-gone' | 'failed' | 'unsupported'>
}

export interface InjectedSlots {
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly query: readonly (readonly [name: string, value: string])[]
}

export class CredentialError extends Error {
  readonly code = 'ERR_CREDENTIAL_UNAVAILABLE'
  override readonly name = 'CredentialError'
}
