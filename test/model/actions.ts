import { isDurable } from '../../policy/revocation-set.ts'
import type { Lift } from '../../policy/lift.ts'
import type { Position } from '../../revocation/link-hash.ts'
import type { Upkeep } from './session.ts'
import * as redis from './store.ts'
import type { Limited, Node, World } from './world.ts'

export interface Action {
  readonly name: string
  readonly run: (world: World) => void
}

/** Everything that can happen next. */
export function actions(world: World): readonly Action[] {
  const there = world.nodes.flatMap((_, index) => [...steps(world, index), ...faults(world, index)])
  return [...operations(world), ...there, ...storeFaults(world)]
}

/** What a sidecar and its connection do by themselves, without faults. */
export function steps(world: World, index: number): readonly Action[] {
  const node = world.node(index)
  const { mode } = node.session
  const on = (name: string, run: (node: Node, world: World) => void): Action => ({
    name: `sidecar ${index + 1} ${name}`,
    run: (there) => run(there.node(index), there),
  })
  if (!node.isConnected) return [on('connects', connect)]
  const found: Action[] = []
  if (node.queue.length > 0) found.push(on('hears', (there) => deliver(there, 0)))
  if (node.answer) {
    if (node.answer.ahead === 0) found.push(on('receives', receive))
    return found
  }
  if (mode === 'idle') found.push(on('asks for the log', beat))
  else if (mode === 'closing-due') found.push(on('asks for what came since the scan', close))
  else if (mode === 'upkeep') found.push(on('gives to the store', upkeep))
  // What a scan reads comes at once, so nothing may be ahead of it.
  else if (node.queue.length > 0) return found
  else if (mode === 'scan-due') found.push(on('reads the head and scans page 1', beginScan))
  else if (mode === 'scanning') found.push(on('scans page 2', endScan))
  return found
}

function operations(world: World): readonly Action[] {
  const { left, store, bounds } = world
  const found: Action[] = []
  const records = redis.recordsOf(store)
  if (left.revoke > 0) {
    const number = bounds.left.revoke - left.revoke + 1
    // Subjects are interchangeable until one of them is used.
    const subjects = number === 1 ? bounds.subjects.slice(0, 1) : bounds.subjects
    for (const subject of subjects) {
      const record = redis.makeRecord({ rid: `r${number}`, subject })
      found.push(
        limited('revoke', `r${number} on ${subject}`, (there) =>
          there.commit({ kind: 'record', record }),
        ),
      )
    }
  }
  for (const { rid } of records) {
    if (left.lift > 0 && !world.signed.has(`lift-${rid}`))
      found.push(limited('lift', rid, sign(rid)))
    if (left.forge > 0) {
      const lift = makeLift('forged', rid)
      found.push(
        limited('forge', `a lift of ${rid}`, (there) => there.commit({ kind: 'lift', lift })),
      )
    }
  }
  const [subject] = bounds.subjects
  if (left.bare > 0 && subject !== undefined) {
    found.push(
      limited('bare', `PUBLISH ${subject}`, (there) => there.publish({ kind: 'bare', subject })),
    )
  }
  return found
}

function faults(world: World, index: number): readonly Action[] {
  const { left } = world
  const node = world.node(index)
  if (!node.isConnected) return []
  const found: Action[] = []
  const who = `at sidecar ${index + 1}`
  if (left.disconnect > 0)
    found.push(limited('disconnect', who, (there) => there.node(index).cut()))
  if (left.drop > 0 && node.queue.length > 0) {
    found.push(limited('drop', who, (there) => drop(there.node(index))))
  }
  if (left.reorder > 0 && node.queue.length > 1) {
    found.push(limited('reorder', who, (there) => deliver(there.node(index), 1)))
  }
  return found
}

function storeFaults(world: World): readonly Action[] {
  const { left, store, lagging } = world
  const found: Action[] = []
  if (left.failover > 0 && store !== lagging) {
    found.push({
      name: 'the replica catches up',
      run: (there) => void (there.lagging = there.store),
    })
    found.push(limited('failover', 'to the lagging replica', failover))
  }
  if (left.wipe > 0 && store.items.size > 0) {
    found.push(limited('wipe', 'the store', (there) => void (there.store = redis.emptyStore)))
  }
  if (left.trim > 0 && store.log.length > 1) {
    found.push(limited('trim', 'the log', (there) => void (there.store = redis.trim(there.store))))
  }
  return found
}

function limited(what: Limited, detail: string, run: (world: World) => void): Action {
  return {
    name: `${what} ${detail}`,
    run: (world) => {
      world.spend(what)
      run(world)
    },
  }
}

function sign(rid: string): (world: World) => void {
  const lift = makeLift('signed', rid)
  return (world) => {
    world.signed = new Map(world.signed).set(lift.rid, rid)
    world.commit({ kind: 'lift', lift })
  }
}

function makeLift(how: 'signed' | 'forged', rid: string): Lift {
  const name = how === 'signed' ? `lift-${rid}` : `forged-${rid}`
  return { rid: name, lifts: [rid], by: 'oncall', reason: '', atMs: 1, compact: `${how} ${rid}` }
}

function failover(world: World): void {
  world.store = world.lagging
  for (const node of world.nodes) if (node.isConnected) node.cut()
}

function connect(node: Node): void {
  node.isConnected = true
  node.call((session) => session.connect())
}

function deliver(node: Node, at: number): void {
  const message = node.take(at)
  if (message) node.call((session) => session.hear(message))
}

function drop(node: Node): void {
  node.take(0)
  node.call((session) => void (session.isLossless = false))
}

function beat(node: Node, world: World): void {
  ask(node, { world, after: node.call((session) => session.begin()) })
}

function close(node: Node, world: World): void {
  ask(node, { world, after: node.call((session) => session.close()) })
}

/** The store answers when it is asked; the answer takes its time. */
function ask(
  node: Node,
  { world, after }: { readonly world: World; readonly after: Position | undefined },
): void {
  if (!after) return
  const promised = redis.recordsOf(world.store)
  node.call((session) => session.asked(promised))
  node.answerWith({ kind: 'page', page: redis.readLog(world.store, after) })
}

function beginScan(node: Node, { store }: World): void {
  const items = redis.readItems(store, 0)
  node.call((session) => session.beginScan(store.head, items))
}

function endScan(node: Node, { store }: World): void {
  const items = redis.readItems(store, 1)
  const promised = redis.recordsOf(store)
  node.call((session) => {
    session.asked(promised)
    session.endScan(items)
  })
}

function receive(node: Node, world: World): void {
  const reply = node.answer?.reply
  node.answer = undefined
  if (reply?.kind === 'page') {
    ask(node, { world, after: node.call((session) => session.receive(reply.page)) })
  }
  if (reply?.kind === 'kept') node.call((session) => session.kept(reply.asked, reply.rid))
}

function upkeep(node: Node, world: World): void {
  const asked = node.session.due()
  if (asked) node.answerWith({ kind: 'kept', asked, rid: give(world, asked) })
  else node.call((session) => void (session.mode = 'idle'))
}

function give(world: World, asked: Upkeep): string {
  if (asked.kind === 'absorb') return world.absorb(asked.assertion.record.subject)
  const { missing } = asked
  if (missing.kind === 'record' && !isDurable(missing.record)) return ''
  world.commit(missing)
  return ''
}
