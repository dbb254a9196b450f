import { isDurable, recordKey } from '../../policy/revocation-set.ts'
import type { Revocation } from '../../policy/types.ts'
import { steps } from './actions.ts'
import type { Session } from './session.ts'
import { recordsOf } from './store.ts'
import type { Node, World } from './world.ts'

/** What is wrong here and now; undefined when all is well. */
export function violation(world: World): string | undefined {
  for (const node of world.nodes) {
    const wrong =
      node.session.broken ?? forged(world, node) ?? lost(world, node) ?? unheard(world, node)
    if (wrong !== undefined) return wrong
  }
  return undefined
}

/** Ends all faults and lets every sidecar run in turn. What is wrong when nothing moves any more. Uses the world up. */
export function divergence(world: World): string | undefined {
  const join = new Map<string, Revocation>()
  for (const { session } of world.nodes)
    for (const [key, record] of session.told) join.set(key, record)
  for (const record of recordsOf(world.store)) join.set(recordKey(record), record)
  settle(world)
  return violation(world) ?? unequal(world, join)
}

/** I3: every lift that a sidecar took is signed, and ends what the operator named. */
function forged(world: World, { session }: Node): string | undefined {
  const taken = session.replica
    .snapshot()
    .lifts.find(({ rid, lifts }) => lifts.length !== 1 || world.signed.get(rid) !== lifts[0])
  return taken && `I3: took ${taken.rid} for ${taken.lifts.join(' and ')}`
}

/** I1: what a sidecar was told is in force there until a lift that names it. */
function lost(world: World, { session }: Node): string | undefined {
  const { records } = session.replica.snapshot()
  const held = new Set(records.map(recordKey))
  for (const [key, record] of session.told) if (!held.has(key)) return `I1: lost ${record.rid}`
  const lifted = liftedBy(session)
  for (const subject of world.bounds.subjects) {
    const inForce = records.some(
      (record) => record.subject === subject && !(isDurable(record) && lifted.has(record.rid)),
    )
    const isBlocked = session.replica.find([subject]) !== undefined
    if (inForce !== isBlocked) return `I1: ${subject} is ${isBlocked ? '' : 'not '}blocked`
    if (!isBlocked && isAsserted(world, { session, subject })) return `I1: lost the bare ${subject}`
  }
  return undefined
}

/** I5: on a proven connection without loss, what the store has is held, or on its way. */
function unheard(world: World, { session, queue }: Node): string | undefined {
  if (!session.isProvenHere || !session.isLossless) return undefined
  const known = new Set(session.replica.snapshot().records.map(recordKey))
  for (const message of queue) {
    if (message.kind === 'item' && message.item.kind === 'record')
      known.add(recordKey(message.item.record))
  }
  const missed = recordsOf(world.store).find((record) => !known.has(recordKey(record)))
  return missed && `I5: neither holds ${missed.rid} nor will hear it`
}

/** A bare assertion was heard, and no lift of a record that stands for its subject was taken since. */
function isAsserted(
  { bareRids }: World,
  { session, subject }: { readonly session: Session; readonly subject: string },
): boolean {
  const heard = session.order.indexOf(`bare ${subject}`)
  if (heard === -1) return false
  const since = session.order.slice(heard + 1)
  return !since.some((event) => bareRids.get(event.slice('lifted '.length)) === subject)
}

function liftedBy({ replica }: Session): ReadonlySet<string> {
  return new Set(replica.snapshot().lifts.flatMap(({ lifts }) => lifts))
}

function settle(world: World): void {
  for (let round = 0; round < maxRounds; round++) {
    const before = world.key()
    world.nodes.forEach((_, index) => takeTurn(world, index))
    if (world.key() === before) return
  }
}

/** One beat and all that is on its way, to the end. */
function takeTurn(world: World, index: number): void {
  for (let step = 0; step < maxSteps; step++) {
    const [next] = steps(world, index)
    if (!next) return
    next.run(world)
    const { isConnected, answer, queue, session } = world.node(index)
    if (isConnected && !answer && queue.length === 0 && session.mode === 'idle' && step > 0) return
  }
}

/** I4: all sidecars and the store have the join, the same lifts, and nothing left to do. */
function unequal(world: World, join: ReadonlyMap<string, Revocation>): string | undefined {
  const { store } = world
  for (const [index, { session }] of world.nodes.entries()) {
    const who = `sidecar ${index + 1}`
    const { records, lifts } = session.replica.snapshot()
    const held = new Set(records.map(recordKey))
    for (const [key, { rid }] of join) {
      if (!held.has(key)) return `I4: ${who} never has ${rid}`
      if (!store.items.has(rid)) return `I4: the store never has ${rid}`
    }
    if (held.size !== recordsOf(store).length) return `I4: ${who} holds what the store has not`
    const missing = lifts.find(({ rid }) => !store.items.has(rid))
    if (missing) return `I4: the store never has ${missing.rid}`
    const signed = [...store.items.keys()].filter((rid) => world.signed.has(rid))
    if (lifts.length !== signed.length) return `I4: ${who} has not all lifts`
    if (session.due()) return `I4: ${who} has work left`
    if (session.replica.proof?.position.h !== store.head.h) return `I4: ${who} is not at the head`
  }
  return undefined
}

const maxRounds = 10
const maxSteps = 60
