import type { ApiOperations } from './api-operations.ts'
import type { ToolTypes } from './tool-types.ts'
import type { Severity } from './annotations.ts'

/** The nouns of the product. Everything here is immutable data; how it is made lives beside who makes it. */

/** A SPIFFE ID of a workload. Only `parseSpiffeId()` makes one. */
export type SpiffeId = `spiffe://${string}`

/** How the agent proved who it is. Visible to policy, so that weaker kinds can be refused. */
export type IdentityKind = 'jwt-svid'

/** The workload that asks, as its verified identity document says. */
export interface Agent {
  readonly id: SpiffeId
  readonly trustDomain: string
  readonly kind: IdentityKind
  /** `exp` of the identity document, epoch milliseconds. */
  readonly expiresAtMs: number
  /** First 16 hex digits of SHA-256 over the signing input. Safe to log; the token is not. */
  readonly svidDigest: string
  readonly svidJti?: string
}

/** Data classes in rising order: the highest that a task may touch, or that an upstream holds. */
export const sensitivities = ['public', 'internal', 'confidential', 'restricted'] as const
export type Sensitivity = (typeof sensitivities)[number]

/** One RFC 9396 `authorization_details` entry: what a grant allows. An entry matches when all its members do. */
export type Destination =
  | {
      readonly type: 'http_api'
      readonly locations: readonly string[]
      readonly actions: readonly string[]
      readonly paths: readonly string[]
      /** `deny` refuses any request with a query string. Default `allow`. */
      readonly query?: 'allow' | 'deny'
    }
  | {
      readonly type: 'mcp_server'
      readonly locations: readonly string[]
      readonly tools: readonly string[]
      readonly args?: Readonly<Record<string, ArgumentConstraint>>
    }
  | {
      readonly type: 'ws'
      readonly locations: readonly string[]
      readonly paths: readonly string[]
    }

/** All members present must hold. A constrained argument that is missing does not match. */
export interface ArgumentConstraint {
  readonly enum?: readonly (string | number | boolean)[]
  readonly prefix?: string
  readonly max?: number
}

/** A verified `task-grant+jwt`: this agent, this task, this purpose, these destinations, until then. */
export interface Grant {
  /** Approver authority URI (`iss`). */
  readonly approver: string
  readonly kid: string
  readonly jti: string
  /** The task: `txn` everywhere else too (RFC 8417 section 2.2). */
  readonly txn: string
  readonly agent: SpiffeId
  readonly audience: string
  readonly issuedAtMs: number
  readonly notBeforeMs: number
  readonly expiresAtMs: number
  readonly purpose: string
  readonly purposeText?: string
  readonly sensitivity: Sensitivity
  readonly destinations: readonly Destination[]
  readonly onBehalfOf?: { readonly iss: string; readonly sub: string }
  readonly delegation?: {
    readonly maxDepth: number
    readonly to: readonly string[]
    readonly issuers?: readonly string[]
  }
  /** Of a grant for a sub-agent. Absent: a root, which hangs on no other. */
  readonly parent?: Parent
  /** base64url(SHA-256(JWS signing input)): what sign-offs and children bind to. */
  readonly s256: string
}

/** The grant that another was narrowed from, named by its signing input. */
export interface Parent {
  readonly jti: string
  readonly iss: string
  readonly s256: string
  /** Root first; the last is the parent itself. */
  readonly ancestors: readonly Ancestor[]
}

export interface Ancestor {
  readonly jti: string
  readonly txn: string
  readonly agent: SpiffeId
}

/** A further approver's signature over the same grant (dual control). */
export interface SignOff {
  readonly approver: string
  readonly subject: string
  readonly jti: string
  readonly domain: string
  readonly expiresAtMs: number
}

/** Root first, leaf last. Every link must allow a request; the leaf names the task and the agent. */
export interface GrantChain {
  readonly links: readonly [Grant, ...Grant[]]
  readonly leaf: Grant
  readonly signOffs: readonly SignOff[]
  /** The earliest expiry of all links, epoch milliseconds. */
  readonly expiresAtMs: number
  /** What a revocation may name to end this chain: built once, checked on every request. See `chainSubjects()`. */
  readonly subjects: readonly string[]
}

/** The API behind the proxy, as policy sees it. `origin` and `basePath` are what is dialled and prefixed. */
export interface Upstream {
  readonly name: string
  readonly kind: UpstreamKind
  /** Scheme, host, port: lower case, default port left out. `https://api.example.org` */
  readonly origin: string
  readonly sensitivity: Sensitivity
  /** Types of its tools' arguments. Present on every upstream when the schema of policies has typed arguments. */
  readonly tools?: ToolTypes
  /** What its OpenAPI document names. Present on every upstream when the schema of policies has named operations. */
  readonly operations?: ApiOperations
}
export type UpstreamKind = 'rest' | 'mcp'

/** What is asked. `path` is the raw path that will be forwarded: judged, forwarded and audited as the same bytes. */
export type Operation =
  | {
      readonly kind: 'http'
      readonly method: string
      readonly path: string
      readonly hasQuery: boolean
    }
  | {
      readonly kind: 'websocket'
      readonly method: 'GET'
      readonly path: string
      readonly hasQuery: boolean
    }
  | {
      readonly kind: 'mcp'
      readonly method: 'POST'
      readonly path: string
      readonly hasQuery: boolean
      readonly message: McpMessage
    }

export type McpMessage =
  | {
      readonly type: 'tools/call'
      readonly id: string | number
      readonly tool: string
      /** JSON pointer without its leading slash -> canonical scalar. Agent JSON never reaches Cedar as structure. */
      readonly args: ReadonlyMap<string, ArgumentValue>
    }
  | { readonly type: 'request'; readonly id: string | number; readonly method: string }
  | { readonly type: 'notification'; readonly method: string }
  | { readonly type: 'response'; readonly id: string | number }

export type ArgumentValue = string | number | boolean | null

/** Every reason for which a request is refused: a closed set, a public contract (docs/denials.md). */
export const denialCodes = [
  'identity-required',
  'identity-invalid',
  'credential-ambiguous',
  'task-grant-required',
  'task-grant-invalid',
  'task-conflict',
  'task-expired',
  'task-terminated',
  'task-paused',
  'agent-quarantined',
  'policy-denied',
  'approval-required',
  'approval-quorum',
  'task-limit',
  'control-plane-stale',
  'upstream-credential-unavailable',
  'upstream-credential-rejected',
  'upstream-unreachable',
  'request-refused',
] as const
export type DenialCode = (typeof denialCodes)[number]

/** A refusal is a value. `detail` is for the operator's audit; the text that an agent reads comes from the code. */
export interface Denial {
  readonly outcome: 'deny'
  readonly code: DenialCode
  /** What exactly failed, for audit. Never holds token bytes, argument values or policy source. */
  readonly detail: string
  readonly policyIds?: readonly string[]
  /** The `@reason` of the determining policy: written by the policy's author for the agent's model. */
  readonly reason?: string
  /** The highest `@severity` of the determining policies. */
  readonly severity?: Severity
  /** The policies did not answer: one failed, or the request could not be put to them. */
  readonly undecided?: true
  readonly revocation?: Revocation
}

/** An answer of the policies that was not enforced. */
export interface Observed {
  readonly outcome: 'deny' | 'step-up'
  readonly policyIds: readonly string[]
}

export type Decision =
  | {
      readonly outcome: 'allow'
      readonly policyIds: readonly string[]
      /** What the policies said, when that was only observed. */
      readonly observed?: Observed
    }
  | Denial
  | {
      readonly outcome: 'step-up'
      readonly code: 'approval-required'
      readonly detail: string
      readonly policyIds: readonly string[]
      readonly reason?: string
      readonly severity?: Severity
    }

/** `revoke` ends, `pause` suspends, `quarantine` isolates. */
export type RevocationOp = 'revoke' | 'pause' | 'quarantine'

/** A record in force: it ends, suspends or isolates one subject, until a signed lift names it or it expires. */
export interface Revocation {
  readonly rid: string
  readonly op: RevocationOp
  /** `task:<txn>`, `agent:<spiffe id>`, `agent-prefix:<...>`, `grant:<iss>#<jti>`, ..., `all`: see `parseSubject()`. */
  readonly subject: string
  readonly reason: string
  readonly by: string
  /** When it was recorded, epoch milliseconds on the store's clock. */
  readonly atMs: number
  /** Epoch milliseconds on the store's clock; 0 = never. */
  readonly expiresAtMs: number
  /** Position in the log: `n` of the head that holds it; undefined while provisional (heard, not yet durable). */
  readonly epoch?: number
}

/** What a decision needs of the revocation view. Pure look-ups: whoever feeds it lives elsewhere. */
export interface RevocationView {
  /** Position that this view has proven complete: `n:h`. `-` before the first complete sync. */
  readonly epoch: string
  /** Milliseconds since the send time of the last complete sync; Infinity before the first. Monotonic clock. */
  ageMs(monotonicMs: number): number
  /** The strictest record in force on any of these subjects, or undefined. */
  find(subjects: readonly string[]): Revocation | undefined
}

/** Time comes from outside, always: tests move it, `decide()` never reads it by itself. */
export interface Clock {
  /** Epoch milliseconds. For token claims and records only. */
  now(): number
  /** Milliseconds that never go back. For ages, timeouts and latencies. */
  monotonic(): number
}
