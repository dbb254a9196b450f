import { LRUCache } from 'lru-cache'
import type { Clock } from '../policy/types.ts'
import type { Credential, Issuer, IssueRequest } from './issuer.ts'

interface Held {
  readonly credential: Credential
  /** Monotonic milliseconds after which a new one is issued. */
  readonly refreshAtMs: number
  /** What a revocation may name to end it. */
  readonly subjects: readonly string[]
}

interface CredentialCacheOptions {
  readonly clock: Clock
  /** Called for each credential that was issued. */
  onIssued?(kind: Issuer['kind']): void
}

/** SW-3: a new one is issued when this share of its life has passed. */
const refreshAfterShare = 0.8
const maxHeld = 10_000

/**
 * Keeps short-lived credentials, one per task and upstream: a credential that two tasks share could not be revoked
 * with one of them. Static keys are not kept: their issuer watches the file.
 */
export class CredentialCache {
  readonly #held = new LRUCache<string, Held>({ max: maxHeld })
  /** Bounded by the exchanges in flight: each waits for one. */
  readonly #issuing = new Map<string, Promise<Credential>>()
  readonly #options: CredentialCacheOptions
  /** Rises when credentials are dropped: what was being issued meanwhile is used once, and not kept. */
  #drops = 0
  /** An issuer of a replaced configuration may still serve the requests that began under it. */
  readonly #issuerIds = new WeakMap<Issuer, number>()
  #lastIssuerId = 0

  constructor(options: CredentialCacheOptions) {
    this.#options = options
  }

  /** The credential of this task at this upstream. Rejects with `CredentialError`. */
  async get(issuer: Issuer, request: IssueRequest): Promise<Credential> {
    const key = `${this.#idOf(issuer)}\n${keyOf(request)}`
    const held = this.#held.get(key)
    if (held && this.#options.clock.monotonic() < held.refreshAtMs) return held.credential
    try {
      return await (this.#issuing.get(key) ?? this.#issue(key, { issuer, request }))
    } catch (error) {
      // The old one is good until it expires or is dropped: a signer that is down for a moment need not stop a task.
      const old = this.#held.get(key)
      if (old && old.credential.expiresAtMs > this.#options.clock.now()) return old.credential
      throw error
    }
  }

  /** Ends every credential whose task, agent, grant or approver is this subject, or that is it. `ended` never rejects. */
  revokeCovered(subject: string): { readonly dropped: number; readonly ended: Promise<unknown> } {
    this.#forgetIssuing()
    const covered = [...this.#held.entries()].filter(([, held]) => held.subjects.includes(subject))
    for (const [key] of covered) this.#held.delete(key)
    const ended = Promise.all(covered.map(([, { credential }]) => credential.revoke()))
    return { dropped: covered.length, ended }
  }

  /** Forgets all: a new configuration may issue others. */
  clear(): void {
    this.#forgetIssuing()
    this.#held.clear()
  }

  get size(): number {
    return this.#held.size
  }

  #idOf(issuer: Issuer): number {
    const id = this.#issuerIds.get(issuer) ?? ++this.#lastIssuerId
    this.#issuerIds.set(issuer, id)
    return id
  }

  /** Nobody joins what began before: its issuer or its task may be gone. */
  #forgetIssuing(): void {
    this.#drops += 1
    this.#issuing.clear()
  }

  #issue(
    key: string,
    { issuer, request }: { readonly issuer: Issuer; readonly request: IssueRequest },
  ): Promise<Credential> {
    const drops = this.#drops
    const issuing = issuer
      .issue(request)
      .then((credential) => {
        this.#options.onIssued?.(credential.kind)
        if (drops === this.#drops) this.#keep(key, { credential, request })
        return credential
      })
      .finally(() => {
        if (this.#issuing.get(key) === issuing) this.#issuing.delete(key)
      })
    this.#issuing.set(key, issuing)
    return issuing
  }

  #keep(
    key: string,
    { credential, request }: { readonly credential: Credential; readonly request: IssueRequest },
  ): void {
    const lifeMs = credential.expiresAtMs - request.nowMs
    if (!Number.isFinite(lifeMs)) return
    this.#held.set(key, {
      credential,
      refreshAtMs: this.#options.clock.monotonic() + lifeMs * refreshAfterShare,
      subjects: [
        ...request.chain.subjects,
        `upstream:${request.upstream.name}`,
        ...(credential.subject === undefined ? [] : [credential.subject]),
      ],
    })
  }
}

/** SW-2. The digest of every link: a task with a new grant gets a new credential. */
function keyOf({ agent, chain, upstream }: IssueRequest): string {
  const grants = chain.links.map((link) => link.s256).join('.')
  return `${upstream.name}\n${agent.id}\n${grants}`
}
