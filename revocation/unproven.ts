import type { IdSet } from '../policy/id-set.ts'
import type { Lift } from '../policy/lift.ts'
import { recordKey } from '../policy/revocation-set.ts'
import type { Revocation } from '../policy/types.ts'
import type { Position } from './link-hash.ts'

/** A sync in progress: it leads from a position to the head, and tells what the store does not have. */
export interface Sync {
  readonly kind: 'follow' | 'scan'
  readonly at: Position
  readonly unproven: Unproven
  /** What only messages had brought before the sync asked: it must read them, or the store lost them. */
  readonly heard: readonly string[]
}

/** Where a page of the log leads. */
export type Advance =
  | { readonly kind: 'complete'; readonly at: Position }
  | { readonly kind: 'more'; readonly sync: Sync }
  | { readonly kind: 'broken' }

/** What is held here and was not read from the store: records by their number in the set, lifts by their `rid`. */
export interface Unproven {
  readonly records: IdSet
  readonly lifts: Map<string, Lift>
}

/** What is held here and is not in the store. */
export type Missing =
  | { readonly kind: 'record'; readonly record: Revocation }
  | { readonly kind: 'lift'; readonly lift: Lift }

/** What is read is proven, unless the log is empty: then the store may be losing it, and it is given back. */
export function proves({ kind, at }: Sync): boolean {
  return kind === 'follow' || at.n > 0
}

export function missingKey(missing: Missing): string {
  return missing.kind === 'lift' ? liftKey(missing.lift) : recordKey(missing.record)
}

export function liftKey(lift: Pick<Lift, 'rid'>): string {
  return `lift ${lift.rid}`
}
