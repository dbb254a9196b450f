/**
 * Where grants wait for `Task-Id` and `/t/<txn>/`. The store is not trusted: what it returns is verified like a
 * presented grant. Values are compact JWS text.
 */
export interface GrantStore {
  /** The active grant of a task, or undefined. Rejects when the store cannot answer within its time limit. */
  get(txn: string): Promise<string | undefined>
  put(txn: string, grant: StoredGrant): Promise<void>
  /** Newest first, at most `limit`. */
  list(limit: number): Promise<readonly StoredGrant[]>
}

export interface StoredGrant {
  readonly txn: string
  readonly compact: string
  /** `exp` of the grant, epoch milliseconds: the store drops it some time after. */
  readonly expiresAtMs: number
}
