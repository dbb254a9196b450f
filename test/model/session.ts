import type { Lift } from '../../policy/lift.ts'
import { isDurable, recordKey } from '../../policy/revocation-set.ts'
import type { Revocation } from '../../policy/types.ts'
import type { Assertion } from '../../revocation/assertion.ts'
import type { Position } from '../../revocation/link-hash.ts'
import type { LogPage } from '../../revocation/redis-log.ts'
import { Replica } from '../../revocation/replica.ts'
import { provisional, type StoredItem } from '../../revocation/revocation-record.ts'
import type { Missing, Sync } from '../../revocation/unproven.ts'

/** A rule of the protocol that a mutant leaves out. */
export interface Rules {
  readonly makeReplica: () => Replica
  readonly isSigned: (compact: string) => boolean
  readonly subscribesFirst: boolean
  readonly closesScan: boolean
  readonly scanReplaces: boolean
  readonly forgetsBareOnReconnect: boolean
}

export const rules: Rules = {
  makeReplica: () => new Replica(),
  isSigned: (compact) => compact.startsWith('signed '),
  subscribesFirst: true,
  closesScan: true,
  scanReplaces: false,
  forgetsBareOnReconnect: false,
}

export type Message =
  | { readonly kind: 'bare'; readonly subject: string }
  | { readonly kind: 'item'; readonly item: StoredItem }

export type Upkeep =
  | { readonly kind: 'absorb'; readonly assertion: Assertion }
  | { readonly kind: 'offer'; readonly missing: Missing }

/** Where the loop of the feed stands. */
export type Mode = 'idle' | 'asked' | 'scan-due' | 'scanning' | 'closing-due' | 'upkeep'

/**
 * One sidecar: the real replica, driven in the order in which the feed and its sync drive it. Mutable; it is copied by
 * doing the same calls again, because nothing may reach into the replica.
 */
export class Session {
  replica: Replica
  mode: Mode = 'idle'
  sync: Sync | undefined
  isSubscribed = false
  /** A sync was proven on this connection, and no message was lost on it. */
  isProvenHere = false
  isLossless = true
  /** What it was told or has read: ghosts, for the invariants. */
  readonly told = new Map<string, Revocation>()
  /** What orders assertions and lifts, each at its last place: `bare <subject>`, `lifted <rid>`. */
  order: readonly string[] = []
  /** Records that the store had when the sync last asked. */
  promised: readonly Revocation[] = []
  /** What only messages have brought: the replica does not show it while a scan is due. */
  readonly heard = new Set<string>()
  /** The last thing that the upkeep asked was to absorb. */
  hasAbsorbed = false
  broken: string | undefined
  readonly #rules: Rules
  /** The sync before its first page of the log. */
  #begun: Sync | undefined

  constructor(using: Rules) {
    this.#rules = using
    this.replica = using.makeReplica()
  }

  connect(): void {
    if (this.#rules.forgetsBareOnReconnect) this.#keepOnly(isDurable)
    this.isSubscribed = this.#rules.subscribesFirst
    this.isLossless = true
    this.isProvenHere = false
  }

  disconnect(): void {
    this.mode = 'idle'
    this.sync = undefined
    this.#begun = undefined
    this.promised = []
    this.isSubscribed = false
    this.isProvenHere = false
  }

  hear(message: Message): void {
    if (message.kind === 'bare') {
      const said = { reason: '', by: 'channel', nowMs: 1 } as const
      this.#happened(`bare ${message.subject}`)
      this.replica.hear(provisional(message.subject, said), 0)
      return
    }
    const { item } = message
    if (item.kind === 'lift') {
      if (!this.#holdsLift(item.lift.rid)) this.heard.add(item.lift.rid)
      return this.#admit(item, (lift) => this.replica.lift(lift))
    }
    if (!this.told.has(recordKey(item.record))) this.heard.add(item.record.rid)
    this.told.set(recordKey(item.record), item.record)
    this.replica.hear(item.record, 0)
  }

  /** Starts a beat: where to read the log from, or undefined when a scan is due. */
  begin(): Position | undefined {
    this.sync = this.replica.beginFollow()
    this.mode = this.sync ? 'asked' : 'scan-due'
    return this.sync?.at
  }

  asked(promised: readonly Revocation[]): void {
    this.promised = promised
  }

  /** The head, and then the first page of the scan. */
  beginScan(head: Position, items: readonly StoredItem[]): void {
    if (this.#rules.scanReplaces) this.#keepOnly(() => false)
    this.replica.mistrust()
    this.heard.clear()
    this.sync = this.replica.beginScan(head)
    this.#read(this.sync, items)
    this.mode = 'scanning'
  }

  endScan(items: readonly StoredItem[]): void {
    if (!this.sync) return
    this.#read(this.sync, items)
    this.mode = 'closing-due'
    if (!this.#rules.closesScan) this.#prove(this.sync, this.sync.at)
  }

  /** Where the closing sync of a scan reads from. */
  close(): Position | undefined {
    this.mode = 'asked'
    return this.sync?.at
  }

  /** A page of the log arrives: where to read on from, when it was not the last. */
  receive(page: LogPage): Position | undefined {
    const { sync } = this
    if (!sync) return undefined
    this.#read(
      sync,
      page.entries.map(({ item }) => item),
    )
    const step = this.replica.advance(sync, page)
    if (step.kind === 'more') {
      this.#begun ??= sync
      this.sync = step.sync
      return step.sync.at
    }
    const begun = this.#begun ?? sync
    this.#begun = undefined
    if (step.kind === 'complete') this.#prove(begun, step.at)
    else this.#fail(begun)
    return undefined
  }

  /** What the upkeep would ask of the store next: both kinds get their turn. Lifts are offered before records. */
  due(): Upkeep | undefined {
    const [assertion] = this.replica.assertions(1)
    const absorb = assertion && ({ kind: 'absorb', assertion } as const)
    if (absorb && !this.hasAbsorbed) return absorb
    for (const missing of this.replica.missing) return { kind: 'offer', missing }
    return absorb
  }

  /** The store's answer to what was due; the rid is that of an absorbed assertion. */
  kept(asked: Upkeep, rid: string): void {
    this.hasAbsorbed = asked.kind === 'absorb'
    if (asked.kind === 'absorb') this.replica.absorbed(asked.assertion, rid)
    else {
      this.replica.restored(asked.missing)
      this.heard.add(rid)
    }
    this.mode = this.due() ? 'upkeep' : 'idle'
  }

  #prove(sync: Sync, position: Position): void {
    if (!this.replica.prove(sync, { position, sentAtMs: 0 })) return this.#fail(sync)
    const held = new Set(this.replica.snapshot().records.map(recordKey))
    const missed = this.promised.find((record) => !held.has(recordKey(record)))
    if (missed) this.broken = `I2: fresh without ${missed.rid}`
    this.promised = []
    this.isSubscribed = true
    this.isProvenHere = true
    this.sync = undefined
    this.mode = this.due() ? 'upkeep' : 'idle'
  }

  /** A follow that fails goes on with a scan at once; a scan that fails waits for the next beat. */
  #fail(sync: Sync): void {
    this.sync = undefined
    this.promised = []
    this.mode = sync.kind === 'follow' ? 'scan-due' : 'idle'
  }

  #read(sync: Sync, items: readonly StoredItem[]): void {
    const records = items.flatMap((item) => (item.kind === 'record' ? [item.record] : []))
    for (const item of items) {
      this.heard.delete(item.kind === 'lift' ? item.lift.rid : item.record.rid)
      if (item.kind === 'lift') this.#admit(item, (lift) => this.replica.readLift(sync, lift))
    }
    for (const record of records) this.told.set(recordKey(record), record)
    this.replica.readRecords(sync, { records, serverMs: 0 })
  }

  #admit(item: StoredItem & { readonly kind: 'lift' }, take: (lift: Lift) => void): void {
    const { compact, rid } = item.lift
    if (!this.#rules.isSigned(compact)) return
    const lifts = [compact.slice(compact.indexOf(' ') + 1)]
    take({ rid, lifts, by: 'oncall', reason: '', atMs: 1, compact })
    for (const lifted of lifts) {
      if (!this.order.includes(`lifted ${lifted}`)) this.#happened(`lifted ${lifted}`)
    }
  }

  #holdsLift(rid: string): boolean {
    return this.replica.snapshot().lifts.some((lift) => lift.rid === rid)
  }

  #happened(event: string): void {
    this.order = [...this.order.filter((earlier) => earlier !== event), event]
  }

  #keepOnly(keep: (record: Revocation) => boolean): void {
    const { records, lifts } = this.replica.snapshot()
    this.replica = this.#rules.makeReplica()
    this.replica.restore(records.filter(keep))
    for (const lift of lifts) this.replica.lift(lift)
  }
}
