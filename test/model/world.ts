import { isDurable, recordKey } from '../../policy/revocation-set.ts'
import type { LogPage } from '../../revocation/redis-log.ts'
import type { StoredItem } from '../../revocation/revocation-record.ts'
import { missingKey } from '../../revocation/unproven.ts'
import { Session, type Message, type Rules, type Upkeep } from './session.ts'
import * as redis from './store.ts'

/** How often each operation and each fault may happen on one path, and between how many sidecars. */
export interface Bounds {
  readonly sidecars: number
  readonly subjects: readonly string[]
  readonly left: Readonly<Record<Limited, number>>
}

export type Limited =
  | 'revoke'
  | 'lift'
  | 'forge'
  | 'bare'
  | 'drop'
  | 'reorder'
  | 'disconnect'
  | 'failover'
  | 'wipe'
  | 'trim'

type Reply =
  | { readonly kind: 'page'; readonly page: LogPage }
  | { readonly kind: 'kept'; readonly asked: Upkeep; readonly rid: string }

/** An answer on its way. One connection is one order: the messages that were sent before it come before it. */
interface Answer {
  readonly reply: Reply
  /** How many of the messages in the queue these are. Later ones may be handled sooner than the answer. */
  readonly ahead: number
}

/** One sidecar, its connection, and what is on the way to it. */
export class Node {
  isConnected = false
  queue: readonly Message[] = []
  answer: Answer | undefined
  readonly #rules: Rules
  #calls: readonly ((session: Session) => void)[] = []
  #session: Session
  /** A copy has the same session until one of them calls it. */
  #isShared = false

  constructor(rules: Rules, session: Session = new Session(rules)) {
    this.#rules = rules
    this.#session = session
  }

  /** To read; only `call()` changes it. */
  get session(): Session {
    return this.#session
  }

  answerWith(reply: Reply): void {
    this.answer = { reply, ahead: this.queue.length }
  }

  /** Takes a message out of the queue. */
  take(at: number): Message | undefined {
    const message = this.queue[at]
    this.queue = this.queue.toSpliced(at, 1)
    const { answer } = this
    if (answer && at < answer.ahead) this.answer = { ...answer, ahead: answer.ahead - 1 }
    return message
  }

  /** A call to the session, which a copy makes again. */
  call<T>(step: (session: Session) => T): T {
    if (this.#isShared) this.#session = this.#replay()
    this.#isShared = false
    this.#calls = [...this.#calls, step]
    return step(this.#session)
  }

  copy(): Node {
    const copy = new Node(this.#rules, this.#session)
    copy.isConnected = this.isConnected
    copy.queue = this.queue
    copy.answer = this.answer
    copy.#calls = this.#calls
    copy.#isShared = true
    this.#isShared = true
    return copy
  }

  #replay(): Session {
    const session = new Session(this.#rules)
    for (const step of this.#calls) step(session)
    return session
  }

  cut(): void {
    this.isConnected = false
    this.queue = []
    this.answer = undefined
    this.call((session) => session.disconnect())
  }
}

/** Everything that there is: the store, its replica, the sidecars, and what operators have done. */
export class World {
  store = redis.emptyStore
  lagging = redis.emptyStore
  nodes: readonly Node[]
  left: Bounds['left']
  /** What operators signed: lift to record. */
  signed: ReadonlyMap<string, string> = new Map()
  /** Records that stand for bare assertions, and their subjects. */
  bareRids: ReadonlyMap<string, string> = new Map()
  readonly bounds: Bounds
  readonly #rules: Rules

  constructor(bounds: Bounds, rules: Rules) {
    this.#rules = rules
    this.bounds = bounds
    this.left = bounds.left
    this.nodes = Array.from({ length: bounds.sidecars }, () => new Node(rules))
  }

  copy(): World {
    const { store, lagging, left, signed, bareRids } = this
    const copy = new World(this.bounds, this.#rules)
    const nodes = this.nodes.map((node) => node.copy())
    return Object.assign(copy, { store, lagging, nodes, left, signed, bareRids })
  }

  spend(what: Limited): void {
    this.left = { ...this.left, [what]: this.left[what] - 1 }
  }

  node(index: number): Node {
    const node = this.nodes[index]
    if (!node) throw new RangeError(`no sidecar ${index}`)
    return node
  }

  commit(draft: redis.Draft): void {
    const { store, item } = redis.commit(this.store, draft)
    this.store = store
    if (item) this.publish({ kind: 'item', item })
  }

  absorb(subject: string): string {
    const rid = `bare-${this.bareRids.size + 1}`
    const done = redis.absorb(this.store, { subject, rid })
    this.store = done.store
    if (done.rid === rid) this.bareRids = new Map(this.bareRids).set(rid, subject)
    if (done.item) this.publish({ kind: 'item', item: done.item })
    return done.rid
  }

  publish(message: Message): void {
    for (const node of this.nodes) {
      if (node.isConnected && node.session.isSubscribed) node.queue = [...node.queue, message]
    }
  }

  /** Equal for two worlds that no later step can tell apart; sidecars are interchangeable. */
  key(): string {
    const { store, lagging, left, signed, bareRids } = this
    const nodes = this.nodes.map(nodeKey).toSorted()
    const stores = [redis.keyOf(store), store === lagging ? '=' : redis.keyOf(lagging)]
    return JSON.stringify([stores, nodes, Object.values(left), [...signed.keys()], [...bareRids]])
  }
}

function nodeKey(node: Node): string {
  const { session, isConnected, queue, answer } = node
  const { replica, sync, mode, order, isSubscribed, isProvenHere, isLossless } = session
  const { records, lifts } = replica.snapshot()
  return JSON.stringify([
    [isConnected, mode, isSubscribed, isProvenHere, isLossless, order, session.hasAbsorbed],
    records.map((record) => [recordKey(record), isDurable(record)].join()).toSorted(),
    lifts.map(({ rid, lifts: named }) => `${rid} ${named.join()}`).toSorted(),
    replica.proof?.position ?? null,
    replica.beginFollow() !== undefined,
    [...session.heard].toSorted(),
    [...replica.missing].map(missingKey).toSorted(),
    replica.assertions(10).map(({ record }) => record.subject),
    sync
      ? [
          sync.kind,
          sync.at,
          [...replica.list(sync.unproven)].map(missingKey).toSorted(),
          sync.heard,
        ]
      : null,
    session.promised.map(recordKey),
    session.told.size,
    queue.map(messageKey),
    answer ? [answer.ahead, replyKey(answer.reply)] : null,
  ])
}

function messageKey(message: Message): string {
  return message.kind === 'bare' ? message.subject : itemKey(message.item)
}

function itemKey(item: StoredItem): string {
  return item.kind === 'lift'
    ? `${item.lift.compact} ${item.lift.epoch}`
    : `${item.record.rid} ${item.record.epoch ?? 0}`
}

function replyKey(reply: Reply): string {
  if (reply.kind === 'page') {
    const { head, entries } = reply.page
    return [head.h, ...entries.map(({ link }) => link)].join()
  }
  const { asked, rid } = reply
  return `${rid} ${asked.kind === 'offer' ? missingKey(asked.missing) : asked.assertion.record.subject}`
}
