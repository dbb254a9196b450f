import type { Severity } from '../policy/annotations.ts'
import type { Sensitivity } from '../policy/types.ts'

/**
 * What the audit holds: a decision record before anything is forwarded, an outcome record after, and lifecycle
 * records between. Field names are a public contract (docs/audit.md). No token, argument value or query value.
 */
export type AuditEvent =
  | DecisionEvent
  | OutcomeEvent
  | RevocationEvent
  | LiftEvent
  | LifecycleEvent
  | CheckpointEvent

export interface DecisionEvent {
  readonly type: 'decision'
  /** Id of the decision: also in the `chaperone-decision` header of the answer. */
  readonly decision_id: string
  readonly route: string | null
  readonly upstream: string | null
  readonly agent: {
    readonly spiffe_id: string
    readonly svid_sha: string
    readonly svid_jti?: string
  } | null
  readonly task: {
    readonly txn: string
    readonly chain: readonly string[]
    /** Root first; absent for a task that was delegated from no other. */
    readonly ancestors?: readonly {
      readonly txn: string
      readonly spiffe_id: string
    }[]
    readonly grant_sha: string
    readonly approvers: readonly string[]
    readonly purpose: string
    /** The least of all grants of the chain: what policies see as `context.sensitivity`. */
    readonly sensitivity: Sensitivity
    readonly carrier: string
  } | null
  readonly request: {
    readonly method: string
    /** The raw path that is forwarded, without the query. */
    readonly path: string
    readonly has_query: boolean
    readonly kind: 'http' | 'websocket' | 'mcp' | null
    readonly mcp?: {
      readonly method: string
      readonly tool?: string
      readonly request_id?: string | number
    }
    /** SHA-256 of the inspected body, hex; only for inspected bodies. */
    readonly args_sha256?: string
    /** From the client: how often its SDK retried by itself, if it says. */
    readonly retry_count?: number
  }
  readonly decision: {
    readonly effect: 'allow' | 'deny' | 'step-up'
    readonly code: string | null
    readonly detail: string | null
    readonly policy_ids: readonly string[]
    readonly policy_set_sha: string
    readonly revocation_epoch: string
    readonly staleness_ms: number
    /** The record that refused this request. */
    readonly rid?: string
    /** The highest `@severity` of the policies that refused. */
    readonly severity?: Severity
    /** What the shadow policies would have said; absent when they were not asked. */
    readonly shadow?: {
      readonly effect: 'allow' | 'deny' | 'step-up'
      readonly policy_ids: readonly string[]
    }
    /** What the policies said while the route or the task was observed only: it was allowed all the same. */
    readonly observed?: {
      readonly effect: 'deny' | 'step-up'
      readonly policy_ids: readonly string[]
    }
  }
  /** True when a task, agent or grant under revocation tried again: the record that answers "did it act after?". */
  readonly after_revocation: boolean
}

export interface OutcomeEvent {
  readonly type: 'outcome'
  readonly decision_id: string
  readonly txn: string | null
  readonly status: number | null
  /** `complete`, `denied`, `cut` (by us), `client-gone`, `upstream-failed`. */
  readonly end: 'complete' | 'denied' | 'cut' | 'client-gone' | 'upstream-failed'
  readonly bytes_up: number
  readonly bytes_down: number
  readonly duration_ms: number
  readonly credential: {
    readonly kind: string
    readonly id_sha: string
    readonly revocation_class: string
  } | null
  readonly cut?: {
    readonly code: string
    readonly rid?: string
    /** How the client was told: `final-message`, `close-1008`, `denied`, `reset`. */
    readonly how: 'final-message' | 'close-1008' | 'denied' | 'reset'
    /** Record in force in this sidecar -> client side closed. */
    readonly after_ms: number
    /** Record in force in this sidecar -> last body byte handed on, each way; negative: before. */
    readonly last_up_ms?: number
    readonly last_down_ms?: number
  }
  readonly error?: string
}

/** Written when a revocation comes into force in this sidecar. */
export interface RevocationEvent {
  readonly type: 'revocation'
  readonly rid: string
  readonly op: string
  readonly subject: string
  readonly reason: string
  readonly by: string
  readonly recorded_at: string
  /** When it ends by itself; absent: never. */
  readonly expires_at?: string
  readonly revocation_epoch: string
  /** Place of the record in the revocation log; absent: only a bare message has told of it. */
  readonly recorded_epoch?: number
  readonly exchanges_cut: number
}

/** Written when a signed lift counts in this sidecar: from here on the records that it names refuse nothing. */
export interface LiftEvent {
  readonly type: 'lift'
  readonly rid: string
  /** The revocations that it ends. */
  readonly lifts: readonly string[]
  readonly reason: string
  /** The operator that signed it. */
  readonly by: string
  /** On the clock of the operator; absent when it is no date. */
  readonly signed_at?: string
  readonly revocation_epoch: string
}

/**
 * `gap`: requests went on while the sink took no records; those stand before it, in their place. `unread`: what was
 * refused since the one before, because there was no request in it to decide, counted by reason.
 */
export interface LifecycleEvent {
  readonly type: 'start' | 'stop' | 'config' | 'heartbeat' | 'gap' | 'unread'
  readonly detail: Readonly<Record<string, string | number | boolean>>
}

/** Proof against whoever can write the file: it cannot be sealed anew up to here without the key. */
export interface CheckpointEvent {
  readonly type: 'checkpoint'
  readonly checkpoint: {
    /** The record before this one: its number and its hash. */
    readonly seq: number
    readonly hash: string
    /** How many records this process added since the checkpoint before. */
    readonly records: number
    /** Where the chain of the fleet's checkpoints was when this process last put one into the store, `n:h`. */
    readonly fleet?: string
    /** Compact JWS, `typ` `audit-checkpoint+jwt`, over `iss` (the instance), `seq`, `hash`, `fleet` and `iat`. */
    readonly sig: string
  }
}

/** One line of the file: the event in its envelope. `hash` covers the RFC 8785 form of everything else. */
export type AuditRecord = {
  readonly v: 1
  readonly seq: number
  readonly ts: string
  readonly mono_ns: string
  readonly sidecar: {
    readonly instance: string
    readonly version: string
    readonly config_sha: string
  }
  readonly prev: string
  readonly hash: string
} & AuditEvent
