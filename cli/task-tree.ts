import { decodeJwt } from 'jose'
import * as v from 'valibot'
import type { StoredGrant } from '../revocation/grant-store.ts'

/** A stored grant as the eye of an operator sees it: nothing in it was verified. */
export interface StoredTask {
  readonly txn: string
  /** Undefined when the store holds something else than a grant. */
  readonly agent: string | undefined
  readonly purpose: string | undefined
  /** Epoch milliseconds. */
  readonly expiresAtMs: number
  /** The tasks that it was delegated from, root first. */
  readonly ancestors: readonly string[]
}

export interface TaskTree extends StoredTask {
  readonly children: readonly TaskTree[]
}

export function readTask({ txn, compact, expiresAtMs }: StoredGrant): StoredTask {
  const { sub, purpose, anc } = v.parse(claims, claimsOf(compact))
  return {
    txn,
    agent: sub,
    purpose,
    expiresAtMs,
    ancestors: anc.map((ancestor) => ancestor.txn),
  }
}

/** Each task below its parent, where the parent is among them; in the order in which they came. */
export function taskForest(tasks: readonly StoredTask[]): readonly TaskTree[] {
  const listed = new Set(tasks.map(({ txn }) => txn))
  const byParent = Map.groupBy(tasks, ({ ancestors }) => ancestors.at(-1) ?? '')
  const placed = new Set<StoredTask>()
  const grow = (task: StoredTask, depth: number): TaskTree => {
    placed.add(task)
    const below = depth < maxDepth ? (byParent.get(task.txn) ?? []) : []
    const children = below.flatMap((one) => (placed.has(one) ? [] : [grow(one, depth + 1)]))
    return { ...task, children }
  }
  const tops = tasks.filter(({ ancestors }) => !listed.has(ancestors.at(-1) ?? ''))
  const trees = tops.map((task) => grow(task, 1))
  // Nobody signs two that name each other as parents, but somebody may store them: no task is left out.
  return [...trees, ...tasks.flatMap((task) => (placed.has(task) ? [] : [grow(task, 1)]))]
}

/** What a revocation of the task ends besides it: every task that names it among its ancestors. */
export function descendants(tasks: readonly StoredTask[], txn: string): readonly TaskTree[] {
  return taskForest(tasks.filter(({ ancestors }) => ancestors.includes(txn)))
}

/** Every task of the trees with how deep it lies, each above its children. */
export function flatten(
  trees: readonly TaskTree[],
  depth: number = 0,
): readonly (readonly [task: StoredTask, depth: number])[] {
  return trees.flatMap((tree) => [[tree, depth] as const, ...flatten(tree.children, depth + 1)])
}

/** A chain has at most 8 links; what is stored may pretend to more. */
const maxDepth = 8

const text = v.fallback(v.optional(v.string()), undefined)
const claims = v.object({
  sub: text,
  purpose: text,
  anc: v.fallback(v.optional(v.array(v.object({ txn: v.string() })), []), []),
})

function claimsOf(compact: string): unknown {
  try {
    return decodeJwt(compact)
  } catch {
    return {}
  }
}
