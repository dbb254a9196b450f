import { actions } from './actions.ts'
import { divergence, violation } from './invariants.ts'
import type { Rules } from './session.ts'
import { World, type Bounds } from './world.ts'

export interface Exploration {
  readonly states: number
  /** How many of the states were run on without faults, to see whether they converge. */
  readonly settled: number
  readonly depth: number
  readonly counterexample: Counterexample | undefined
}

export interface Counterexample {
  readonly wrong: string
  /** The shortest path there is. */
  readonly path: readonly string[]
}

interface Options {
  readonly rules: Rules
  readonly depth: number
  /** Every n-th new state is tried for convergence. */
  readonly settleEvery: number
}

/** Breadth first over every order of what can happen, up to `depth` steps; ends at the first violation. */
export function explore(bounds: Bounds, { rules, depth, settleEvery }: Options): Exploration {
  const start = new World(bounds, rules)
  const seen = new Set([start.key()])
  let frontier: readonly Visit[] = [{ world: start, path: undefined }]
  let settled = 0
  const result = (at: number, counterexample?: Counterexample): Exploration => ({
    states: seen.size,
    settled,
    depth: at,
    counterexample,
  })
  for (let at = 1; at <= depth && frontier.length > 0; at++) {
    const next: Visit[] = []
    for (const { world, path } of frontier) {
      for (const action of actions(world)) {
        const there = world.copy()
        action.run(there)
        const key = there.key()
        if (seen.has(key)) continue
        seen.add(key)
        const visit = { world: there, path: { name: action.name, before: path } }
        const isTried = seen.size % settleEvery === 0
        if (isTried) settled++
        const wrong = violation(there) ?? (isTried ? divergence(there.copy()) : undefined)
        if (wrong !== undefined) return result(at, { wrong, path: unwind(visit.path) })
        next.push(visit)
      }
    }
    frontier = next
  }
  return result(depth)
}

interface Visit {
  readonly world: World
  readonly path: Path | undefined
}

interface Path {
  readonly name: string
  readonly before: Path | undefined
}

function unwind(path: Path | undefined): readonly string[] {
  const names: string[] = []
  for (let at = path; at; at = at.before) names.unshift(at.name)
  return names
}
