import type { Clock, GrantChain, Operation, Revocation } from '../policy/types.ts'
import type { LiveTask, LiveTasks } from '../revocation/presence-row.ts'
import type { Cut, Cuttable, CutHow, Exchange } from './exchange.ts'

/** What an exchange is about: decides which revocations cover it. */
export interface Tracked {
  readonly chain: GrantChain
  readonly operation: Operation
  readonly upstreamName: string
}

/** Upstream sides aborted in one turn of the event loop: other tasks keep their latency. */
const abortsPerTurn = 100

/**
 * Every request and stream in flight. An intrusive list, because a `Set` entry per request is promoted to the old heap
 * and doubled the resident memory under load (datapath.md 3.6).
 */
export class Exchanges {
  readonly #clock: Clock
  #first: TrackedExchange | undefined
  #count = 0

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock
  }

  get count(): number {
    return this.#count
  }

  /** Puts an exchange on the list until it is disposed. */
  track(tracked: Tracked): Exchange {
    const exchange = new TrackedExchange(tracked, {
      clock: this.#clock,
      remove: () => this.#remove(exchange),
    })
    exchange.next = this.#first
    if (this.#first) this.#first.previous = exchange
    this.#first = exchange
    this.#count += 1
    return exchange
  }

  /** Cuts everything that the record covers. Returns how many. */
  cutCovered(record: Revocation, code: Cut['code']): number {
    return this.#cut({ code, revocation: record }, (exchange) =>
      exchange.isCoveredBy(record.subject),
    )
  }

  /** Cuts what rests on a grant that has expired. */
  cutExpired(nowMs: number): number {
    return this.#cut({ code: 'task-expired' }, (exchange) => exchange.expiresAtMs <= nowMs)
  }

  /** How many exchanges each task and its descendants have in flight, for the `limit` tasks that have the most. */
  liveTasks(limit: number): LiveTasks {
    const tasks = new Map<string, LiveTask>()
    for (let exchange = this.#first; exchange; exchange = exchange.next) {
      for (const [txn, more] of exchange.tasks()) {
        tasks.set(txn, { ...more, exchanges: (tasks.get(txn)?.exchanges ?? 0) + 1 })
      }
    }
    const most = [...tasks].toSorted(([, a], [, b]) => b.exchanges - a.exchanges)
    return new Map(most.slice(0, limit))
  }

  cutAll(code: Cut['code']): number {
    return this.#cut({ code }, () => true)
  }

  /**
   * All flags first, then all client sockets, then the upstream sides in turns: nothing is forwarded from the first
   * moment on, and the agent feels it before the upstream does.
   */
  #cut(
    why: Pick<Cut, 'code' | 'revocation'>,
    covers: (exchange: TrackedExchange) => boolean,
  ): number {
    const cut: Cut = { ...why, atMonotonicMs: this.#clock.monotonic() }
    const covered: TrackedExchange[] = []
    for (let exchange = this.#first; exchange; exchange = exchange.next) {
      if (exchange.cut || !covers(exchange)) continue
      exchange.cut = cut
      covered.push(exchange)
    }
    for (const exchange of covered) exchange.cutClient()
    abortInTurns(covered)
    return covered.length
  }

  #remove(exchange: TrackedExchange): void {
    if (exchange.previous) exchange.previous.next = exchange.next
    else if (this.#first === exchange) this.#first = exchange.next
    else return
    if (exchange.next) exchange.next.previous = exchange.previous
    exchange.previous = undefined
    exchange.next = undefined
    this.#count -= 1
  }
}

class TrackedExchange implements Exchange {
  cut: Cut | undefined
  cutHow: CutHow | undefined
  cutAfterMs: number | undefined
  lastUpMs: number | undefined
  lastDownMs: number | undefined
  next: TrackedExchange | undefined
  previous: TrackedExchange | undefined
  readonly #tracked: Tracked
  readonly #clock: Clock
  readonly #remove: () => void
  #target: Cuttable | undefined
  #bytesUp = 0
  #bytesDown = 0
  #credential: string | undefined

  constructor(tracked: Tracked, options: { readonly clock: Clock; readonly remove: () => void }) {
    this.#tracked = tracked
    this.#clock = options.clock
    this.#remove = options.remove
  }

  get bytesUp(): number {
    return this.#bytesUp
  }
  set bytesUp(count: number) {
    this.#bytesUp = count
    this.lastUpMs = this.#clock.monotonic()
  }

  get bytesDown(): number {
    return this.#bytesDown
  }
  set bytesDown(count: number) {
    this.#bytesDown = count
    this.lastDownMs = this.#clock.monotonic()
  }

  get expiresAtMs(): number {
    return this.#tracked.chain.expiresAtMs
  }

  isCoveredBy(subject: string): boolean {
    const { chain, operation, upstreamName } = this.#tracked
    if (chain.subjects.includes(subject) || subject === this.#credential) return true
    if (subject === `upstream:${upstreamName}`) return true
    if (operation.kind !== 'mcp' || operation.message.type !== 'tools/call') return false
    return subject === `tool:${upstreamName}/${operation.message.tool}`
  }

  /** Each task of the chain once, with the one that it was delegated from. */
  tasks(): ReadonlyMap<string, Pick<LiveTask, 'parent'>> {
    const tasks = new Map<string, Pick<LiveTask, 'parent'>>()
    let parent: string | undefined
    for (const { txn } of this.#tracked.chain.links) {
      if (!tasks.has(txn)) tasks.set(txn, parent === undefined ? {} : { parent })
      parent = txn
    }
    return tasks
  }

  restsOn(subject: string): void {
    this.#credential = subject
  }

  attach(target: Cuttable): void {
    this.#target = target
    if (!this.cut) return
    this.cutClient()
    this.cutUpstream()
  }

  cutClient(): void {
    if (!this.cut || !this.#target || this.cutHow !== undefined) return
    this.cutHow = this.#target.cutClient(this.cut)
    this.cutAfterMs = this.#clock.monotonic() - this.cut.atMonotonicMs
  }

  cutUpstream(): void {
    this.#target?.cutUpstream()
  }

  [Symbol.dispose](): void {
    this.#remove()
  }
}

function abortInTurns(exchanges: readonly TrackedExchange[]): void {
  for (const exchange of exchanges.slice(0, abortsPerTurn)) exchange.cutUpstream()
  if (exchanges.length > abortsPerTurn) {
    setImmediate(() => abortInTurns(exchanges.slice(abortsPerTurn)))
  }
}
