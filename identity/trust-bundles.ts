import { setTimeout as delay } from 'node:timers/promises'
import type { Config, TrustBundleConfig } from '../config/schema.ts'
import type { Clock } from '../policy/types.ts'
import { fetchBundle, TrustBundleError } from './fetch-bundle.ts'
import { parseTrustBundle, type TrustBundle } from './trust-bundle.ts'

/** What is known of a trust domain now. */
export type TrustBundleLookup =
  | { readonly state: 'usable'; readonly bundle: TrustBundle; readonly generation: number }
  /** Configured, but never loaded, or not confirmed for longer than `maxBundleStaleness`. */
  | { readonly state: 'unavailable'; readonly reason: string }
  /** Not configured: nobody of this domain is trusted. */
  | { readonly state: 'unknown' }

/** One trust domain, for the operator. */
export interface TrustBundleStatus {
  readonly trustDomain: string
  readonly keys: number
  /** Rises with each change of the keys; 0 before the first. */
  readonly generation: number
  /** Since the source last confirmed what is in use; Infinity before the first time. */
  readonly ageMs: number
  /** JWT keys of the document that are not used, with the reason. */
  readonly ignoredKeys: readonly string[]
  /** Why the last attempt did not confirm; absent after one that did. */
  readonly lastError?: string
}

/**
 * The trust bundles of all configured domains, kept up to date. Domains are never merged: the keys of one vouch for its
 * own workloads only.
 */
export class TrustBundles implements AsyncDisposable {
  readonly #domains = new Map<string, Domain>()
  readonly #maxStalenessMs: number
  readonly #clock: Clock
  readonly #stop = new AbortController()
  #following: Promise<unknown> = Promise.resolve()
  #generation = 0

  /** Throws `TrustBundleError` when a trust domain is configured twice. */
  constructor(identity: Config['identity'], options: { readonly clock: Clock }) {
    this.#clock = options.clock
    this.#maxStalenessMs = identity.maxBundleStaleness
    for (const source of identity.trustBundles) {
      if (this.#domains.has(source.trustDomain)) {
        throw new TrustBundleError(
          `Trust domain "${source.trustDomain}" has two bundles, expected one`,
        )
      }
      this.#domains.set(source.trustDomain, {
        source,
        current: undefined,
        generation: 0,
        confirmedAtMs: Number.NEGATIVE_INFINITY,
        lastError: undefined,
        loading: Promise.resolve(),
      })
    }
  }

  /** Asks every source once, then keeps following them. A source that fails leaves its domain untrusted for now. */
  async start(): Promise<void> {
    await this.refresh()
    this.#following = Promise.all(this.#all().map((domain) => this.#follow(domain)))
  }

  /** Asks every source now. Never rejects: what failed is in `status()`. */
  async refresh(): Promise<void> {
    await Promise.all(this.#all().map((domain) => this.#load(domain)))
  }

  /** The bundle of exactly this domain. Asked on every request, so that age and change count at once. */
  find(trustDomain: string): TrustBundleLookup {
    const domain = this.#domains.get(trustDomain)
    if (!domain) return { state: 'unknown' }
    if (!domain.current) return { state: 'unavailable', reason: 'its bundle was never loaded' }
    if (this.#ageMs(domain) > this.#maxStalenessMs) {
      return { state: 'unavailable', reason: 'its bundle is stale' }
    }
    return { state: 'usable', bundle: domain.current.bundle, generation: domain.generation }
  }

  /** Whether every domain has a usable bundle. */
  get ready(): boolean {
    return [...this.#domains.keys()].every((name) => this.find(name).state === 'usable')
  }

  status(): readonly TrustBundleStatus[] {
    return this.#all().map((domain) => ({
      trustDomain: domain.source.trustDomain,
      keys: domain.current?.bundle.keys.size ?? 0,
      generation: domain.generation,
      ageMs: this.#ageMs(domain),
      ignoredKeys: domain.current?.bundle.ignored ?? [],
      ...(domain.lastError !== undefined && { lastError: domain.lastError }),
    }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#following
  }

  #all(): Domain[] {
    return [...this.#domains.values()]
  }

  #ageMs(domain: Domain): number {
    return this.#clock.monotonic() - domain.confirmedAtMs
  }

  async #follow(domain: Domain): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      try {
        await delay(nextAskMs(domain), undefined, { signal, ref: false })
      } catch {
        return
      }
      await this.#load(domain)
    }
  }

  /** One question at a time: two answers that overtake each other would put the older keys back. */
  #load(domain: Domain): Promise<void> {
    domain.loading = domain.loading.then(() => this.#loadNow(domain))
    return domain.loading
  }

  /** Never rejects: a failure leaves the last good bundle in use, to age. */
  async #loadNow(domain: Domain): Promise<void> {
    // The age counts from before the question: what it answers is at least that fresh.
    const askedAtMs = this.#clock.monotonic()
    try {
      const bytes = await fetchBundle(domain.source, this.#stop.signal)
      this.#accept(domain, bytes)
      domain.confirmedAtMs = askedAtMs
      domain.lastError = undefined
    } catch (error) {
      domain.lastError = error instanceof Error ? error.message : 'unknown error'
    }
  }

  #accept(domain: Domain, bytes: Uint8Array): void {
    const { current } = domain
    if (current && Buffer.compare(current.bytes, bytes) === 0) return
    const parsed = parseTrustBundle(bytes)
    if (!parsed.ok) throw new TrustBundleError(`Cannot use the trust bundle: ${parsed.reason}`)
    const { bundle } = parsed
    if ((bundle.sequence ?? 0n) < (current?.bundle.sequence ?? 0n)) {
      throw new TrustBundleError('Cannot use the trust bundle: its spiffe_sequence went back')
    }
    // One counter for all domains: a domain that is taken out and put back never meets an old number.
    domain.generation = ++this.#generation
    domain.current = { bundle, bytes }
  }
}

interface Domain {
  readonly source: TrustBundleConfig
  current: { readonly bundle: TrustBundle; readonly bytes: Uint8Array } | undefined
  generation: number
  confirmedAtMs: number
  lastError: string | undefined
  loading: Promise<void>
}

/**
 * A file is read again each time, not looked at: a rewrite within one tick of the file system's clock, an atomic
 * replacement and a symlink swap are then all the same, and it is a few kilobytes.
 */
const fileEveryMs = 1_000
/** Until its first success a source is asked more often: nobody of its domain gets in before. */
const firstEveryMs = 10_000

function nextAskMs({ source, current }: Domain): number {
  if ('file' in source) return fileEveryMs
  const everyMs = current
    ? (current.bundle.refreshHintMs ?? source.refresh)
    : Math.min(source.refresh, firstEveryMs)
  // 10 % either way, so that a fleet does not ask in step.
  return everyMs * (0.9 + Math.random() * 0.2)
}
