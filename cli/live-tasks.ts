import type { RegisteredSidecar } from '../revocation/presence-reader.ts'
import { printable } from './printable.ts'

/** A task with exchanges in flight, over all sidecars. */
export interface TaskNode {
  readonly txn: string
  /** 0 for a root. */
  readonly depth: number
  /** Its own and those of its descendants. */
  readonly exchanges: number
  readonly sidecars: number
}

/**
 * The tasks that the sidecars list, each below the one that it was delegated from, the busiest first. With a `root`,
 * that task and its descendants alone.
 */
export function taskTree(
  sidecars: readonly RegisteredSidecar[],
  root?: string,
): readonly TaskNode[] {
  const tasks = sumOf(sidecars)
  const roots = root === undefined ? rootsOf(tasks) : [root]
  const nodes: TaskNode[] = []
  const seen = new Set<string>()
  const add = (txn: string, depth: number): void => {
    const task = tasks.get(txn)
    // What stands in the store may claim that a task is its own ancestor.
    if (!task || seen.has(txn) || depth > maxDepth) return
    seen.add(txn)
    nodes.push({ txn, depth, exchanges: task.exchanges, sidecars: task.sidecars })
    for (const child of task.children) add(child, depth + 1)
  }
  for (const txn of roots) add(txn, 0)
  // Nothing that is in flight is left out, whatever it claims to hang on.
  if (root === undefined) for (const txn of tasks.keys()) add(txn, 0)
  return nodes
}

/** At most `limit` lines, then how many are left out. */
export function taskLines(tasks: readonly TaskNode[], limit: number): readonly string[] {
  const shown = tasks.slice(0, limit)
  const names = shown.map(({ txn, depth }) => `${'  '.repeat(depth)}${printable(txn)}`)
  const width = Math.max(0, ...names.map(({ length }) => length))
  const lines = shown.map(
    ({ exchanges, sidecars }, at) =>
      `  ${(names[at] ?? '').padEnd(width)}  ${exchanges} in flight on ${sidecars} sidecars`,
  )
  const more = tasks.length - shown.length
  return more > 0 ? [...lines, `  and ${more} more`] : lines
}

/** Longer than any chain of grants. */
const maxDepth = 16

interface Task {
  readonly exchanges: number
  readonly sidecars: number
  readonly parent: string | undefined
  readonly children: string[]
}

function sumOf(sidecars: readonly RegisteredSidecar[]): ReadonlyMap<string, Task> {
  const tasks = new Map<string, Task>()
  for (const [txn, { exchanges, parent }] of sidecars.flatMap(({ live }) => [...live])) {
    const known = tasks.get(txn)
    tasks.set(txn, {
      exchanges: (known?.exchanges ?? 0) + exchanges,
      sidecars: (known?.sidecars ?? 0) + 1,
      parent: known?.parent ?? parent,
      children: [],
    })
  }
  const sorted = new Map([...tasks].toSorted(([, a], [, b]) => b.exchanges - a.exchanges))
  for (const [txn, { parent }] of sorted) {
    if (parent !== undefined) sorted.get(parent)?.children.push(txn)
  }
  return sorted
}

/** A parent that no sidecar lists has nothing below it to stand under. */
function rootsOf(tasks: ReadonlyMap<string, Task>): readonly string[] {
  return [...tasks].flatMap(([txn, { parent }]) =>
    parent === undefined || !tasks.has(parent) ? [txn] : [],
  )
}
