import { recordKey } from '../../policy/revocation-set.ts'
import type { Lift } from '../../policy/lift.ts'
import type { Revocation } from '../../policy/types.ts'
import type { LogPage } from '../../revocation/redis-log.ts'
import { Replica, type Proof } from '../../revocation/replica.ts'
import type { Advance, Sync } from '../../revocation/unproven.ts'
import { rules, type Rules } from './session.ts'
import type { Bounds, Limited } from './world.ts'

/** The protocol without one of its guards, where that must show, and which invariant it breaks. */
export interface Mutant {
  readonly guard: string
  readonly breaks: RegExp
  readonly rules: Rules
  readonly bounds: Bounds
  readonly depth: number
}

export function mutants(): readonly Mutant[] {
  return [
    mutant('position by number only', {
      breaks: /^I[24]/,
      rules: { makeReplica: () => new NumberOnly() },
      left: { revoke: 2, failover: 1 },
    }),
    mutant('a scan replaces the set', {
      breaks: /^I1/,
      rules: { scanReplaces: true },
      left: { revoke: 2, failover: 1 },
    }),
    mutant('fresh after a scan, without a closing sync', {
      breaks: /^I2/,
      rules: { closesScan: false },
      left: { revoke: 2, drop: 1 },
    }),
    mutant('subscribe after the sync', {
      breaks: /^I5/,
      rules: { subscribesFirst: false },
      left: { revoke: 1 },
    }),
    mutant('lift by subject', {
      breaks: /^I3/,
      rules: { makeReplica: () => new LiftsSubjects() },
      left: { revoke: 2, lift: 1 },
    }),
    mutant('an unsigned lift is accepted', {
      breaks: /^I3/,
      rules: { isSigned: () => true },
      left: { revoke: 1, forge: 1 },
    }),
    mutant('what was only heard is dropped on reconnect', {
      breaks: /^I1/,
      rules: { forgetsBareOnReconnect: true },
      left: { bare: 1, disconnect: 1 },
    }),
    mutant('a push waits until the gap before it is closed', {
      breaks: /^I1/,
      rules: { makeReplica: () => new WaitsForGap() },
      left: { revoke: 2, reorder: 1 },
    }),
    mutant('what was heard need not be read', {
      breaks: /^I4/,
      rules: { makeReplica: () => new TrustsHead() },
      left: { revoke: 2, failover: 1 },
      depth: 16,
    }),
  ]
}

export function boundsOf(
  left: Partial<Bounds['left']>,
  { sidecars }: { readonly sidecars: number } = { sidecars: 1 },
): Bounds {
  return { sidecars, subjects: ['task:1', 'task:2'], left: { ...nothing, ...left } }
}

const nothing: Readonly<Record<Limited, number>> = {
  revoke: 0,
  lift: 0,
  forge: 0,
  bare: 0,
  drop: 0,
  reorder: 0,
  disconnect: 0,
  failover: 0,
  wipe: 0,
  trim: 0,
}

function mutant(
  guard: string,
  said: {
    readonly breaks: RegExp
    readonly rules: Partial<Rules>
    readonly left: Partial<Bounds['left']>
    readonly depth?: number
  },
): Mutant {
  const { breaks, left, depth = 14 } = said
  return { guard, breaks, rules: { ...rules, ...said.rules }, bounds: boundsOf(left), depth }
}

/** Believes a log by its numbers and never looks at the links. */
class NumberOnly extends Replica {
  override advance(sync: Sync, { head, entries }: LogPage): Advance {
    const n = sync.at.n + entries.length
    const at = { n, h: entries.at(-1)?.link ?? head.h }
    if (n === head.n) return { kind: 'complete', at }
    return entries.length === 0 ? { kind: 'broken' } : { kind: 'more', sync: { ...sync, at } }
  }
}

class LiftsSubjects extends Replica {
  override lift(lift: Lift): void {
    const { records } = this.snapshot()
    const subjects = new Set(
      records.filter(({ rid }) => lift.lifts.includes(rid)).map(({ subject }) => subject),
    )
    const named = records.filter(({ subject }) => subjects.has(subject)).map(({ rid }) => rid)
    super.lift({ ...lift, lifts: [...new Set([...lift.lifts, ...named])] })
  }
}

/** Leaves a message that is ahead of what it has to the next sync. */
class WaitsForGap extends Replica {
  readonly #heard = new Set<string>()
  override hear(record: Revocation, serverMs: number): readonly Revocation[] {
    const next = (this.proof?.position.n ?? 0) + this.#heard.size + 1
    if (record.epoch !== undefined && record.epoch > next) return []
    this.#heard.add(recordKey(record))
    return super.hear(record, serverMs)
  }
}

/** Takes a head that links, and is as far as what was heard, for all that there is. */
class TrustsHead extends Replica {
  override prove(sync: Sync, proof: Proof): boolean {
    return super.prove({ ...sync, heard: [] }, proof)
  }
}
