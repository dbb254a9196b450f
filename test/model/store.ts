import type { Lift } from '../../policy/lift.ts'
import type { Revocation } from '../../policy/types.ts'
import { genesis, linkHash, type Position } from '../../revocation/link-hash.ts'
import type { LogEntry, LogPage } from '../../revocation/redis-log.ts'
import type { StoredItem } from '../../revocation/revocation-record.ts'

/** What Redis holds, as a value: every operation gives a new one, so that a failover is an assignment. */
export interface Store {
  readonly head: Position
  readonly log: readonly LogEntry[]
  readonly items: ReadonlyMap<string, StoredItem>
  /** Subject to the record that stands for bare assertions of it; it goes with the lift of that record. */
  readonly absorbed: ReadonlyMap<string, string>
}

export const emptyStore: Store = { head: genesis, log: [], items: new Map(), absorbed: new Map() }

/** What the `commit` script does: nothing when the store has the `rid` and a head, otherwise an entry and a new head. */
export function commit(
  store: Store,
  draft: Draft,
): { readonly store: Store; readonly item?: StoredItem } {
  const rid = draft.kind === 'lift' ? draft.lift.rid : draft.record.rid
  if (store.items.has(rid)) return { store }
  const n = store.head.n + 1
  const item: StoredItem =
    draft.kind === 'lift'
      ? { kind: 'lift', lift: { rid, compact: draft.lift.compact, epoch: n } }
      : { kind: 'record', record: { ...draft.record, epoch: n } }
  const entry = makeEntry(store.head, { rid, item })
  const absorbed = new Map(store.absorbed)
  const ended = draft.kind === 'lift' ? draft.lift.lifts : []
  for (const [subject, by] of absorbed) if (ended.includes(by)) absorbed.delete(subject)
  return {
    item,
    store: {
      head: { n, h: entry.link },
      // A log without a head is a history that nobody can link to.
      log: [...(n === 1 ? [] : store.log), entry],
      items: new Map(store.items).set(rid, item),
      absorbed,
    },
  }
}

/** What the `absorb` script does. `rid` is the one to give when no record stands for the subject yet. */
export function absorb(
  store: Store,
  { subject, rid }: { readonly subject: string; readonly rid: string },
): { readonly store: Store; readonly rid: string; readonly item?: StoredItem } {
  const stands = store.absorbed.get(subject)
  if (stands !== undefined && store.items.has(stands)) return { store, rid: stands }
  const record = makeRecord({ rid, subject, by: 'bare' })
  const done = commit(store, { kind: 'record', record })
  const absorbed = new Map(done.store.absorbed).set(subject, rid)
  return { ...done, rid, store: { ...done.store, absorbed } }
}

/** One atomic read of the head and the log after a position, a page at a time. */
export function readLog(store: Store, after: Position): LogPage {
  const later = store.log.filter(({ item }) => positionOf(item) > after.n)
  return { head: store.head, entries: later.slice(0, pageEntries), revoked: [], serverMs: 1 }
}

/** The materialised items come in two pages, as from a scan: which page an item is on does not change. */
export function readItems(store: Store, page: 0 | 1): readonly StoredItem[] {
  return [...store.items].filter(([rid]) => pageOf(rid) === page).map(([, item]) => item)
}

/** The log loses all but its last entry; the head and the items stay. */
export function trim(store: Store): Store {
  return { ...store, log: store.log.slice(-1) }
}

export function makeRecord(
  said: Pick<Revocation, 'rid' | 'subject'> & { readonly by?: string },
): Revocation {
  return { op: 'revoke', reason: '', by: 'operator', atMs: 1, expiresAtMs: 0, ...said }
}

/** Durable records of the store. */
export function recordsOf(store: Store): readonly Revocation[] {
  return [...store.items.values()].flatMap((item) => (item.kind === 'record' ? [item.record] : []))
}

export function keyOf(store: Store): string {
  const log = store.log.map(({ link }) => link.slice(0, 8))
  return JSON.stringify([store.head, log, [...store.items.keys()].toSorted(), [...store.absorbed]])
}

export type Draft =
  | { readonly kind: 'record'; readonly record: Revocation }
  | { readonly kind: 'lift'; readonly lift: Lift }

/** Fewer than a run can commit, so that a page of the log is not always all of it. */
const pageEntries = 2

const entries = new Map<string, LogEntry>()

function makeEntry(
  head: Position,
  { rid, item }: { readonly rid: string; readonly item: StoredItem },
): LogEntry {
  const envelope = JSON.stringify({ n: head.n + 1, rid, item })
  const known = entries.get(`${head.h} ${envelope}`)
  if (known) return known
  const entry = { previous: head.h, link: linkHash(head.h, envelope), envelope, item }
  entries.set(`${head.h} ${envelope}`, entry)
  return entry
}

function positionOf(item: StoredItem): number {
  return item.kind === 'lift' ? item.lift.epoch : (item.record.epoch ?? 0)
}

/** The second record and its lift are on the first page, so that they can be missed by a scan that is under way. */
function pageOf(rid: string): 0 | 1 {
  return rid.endsWith('2') ? 0 : 1
}
