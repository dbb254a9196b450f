import type { Revocation } from '../policy/types.ts'

/** A bare assertion that the store has yet to take over. */
export interface Assertion {
  readonly record: Revocation
  /** Order of hearing: an answer to an earlier assertion of the subject says nothing about a later one. */
  readonly tick: number
  /** The position at which it was seen in the set of subjects; undefined when it was heard. */
  readonly seenAt: number | undefined
  /** The record of the store that stands for it, once the store has said so. */
  readonly rid: string | undefined
}
