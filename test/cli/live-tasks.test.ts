import { describe, expect, test } from 'vitest'
import { taskLines, taskTree } from '../../cli/live-tasks.ts'
import type { LiveTask } from '../../revocation/presence-row.ts'
import type { RegisteredSidecar } from '../../revocation/presence-reader.ts'

function sidecar(live: Readonly<Record<string, LiveTask>>): RegisteredSidecar {
  const entries = new Map(Object.entries(live))
  return { instance: 'a', seenMs: 0, silent: false, row: undefined, live: entries }
}

const fleet = [
  sidecar({
    'T-1': { exchanges: 3 },
    'T-1.1': { exchanges: 2, parent: 'T-1' },
    'T-1.1.1': { exchanges: 1, parent: 'T-1.1' },
  }),
  sidecar({ 'T-1': { exchanges: 1 }, 'T-2': { exchanges: 9 } }),
]

describe('taskTree()', () => {
  test('sums over sidecars and puts children below their parent, the busiest first', () => {
    expect(taskTree(fleet)).toEqual([
      { txn: 'T-2', depth: 0, exchanges: 9, sidecars: 1 },
      { txn: 'T-1', depth: 0, exchanges: 4, sidecars: 2 },
      { txn: 'T-1.1', depth: 1, exchanges: 2, sidecars: 1 },
      { txn: 'T-1.1.1', depth: 2, exchanges: 1, sidecars: 1 },
    ])
  })

  test('of one task has what hangs on it and nothing else', () => {
    expect(taskTree(fleet, 'T-1.1').map(({ txn }) => txn)).toEqual(['T-1.1', 'T-1.1.1'])
    expect(taskTree(fleet, 'T-3')).toEqual([])
    expect(taskTree(fleet, 'constructor')).toEqual([])
  })

  test('ends where tasks claim to hang on each other, and leaves none out', () => {
    const circle = sidecar({
      a: { exchanges: 1, parent: 'b' },
      b: { exchanges: 1, parent: 'a' },
      c: { exchanges: 1, parent: 'c' },
      d: { exchanges: 1, parent: 'gone' },
    })
    expect(taskTree([circle]).map(({ txn }) => txn)).toHaveLength(4)
  })
})

describe('taskLines()', () => {
  test('indents, keeps to its limit, and lets no name forge a line', () => {
    const tasks = taskTree([...fleet, sidecar({ 'x\n\u001b[2J': { exchanges: 20 } })])
    expect(taskLines(tasks, 4)).toEqual([
      '  x??[2J   20 in flight on 1 sidecars',
      '  T-2      9 in flight on 1 sidecars',
      '  T-1      4 in flight on 2 sidecars',
      '    T-1.1  2 in flight on 1 sidecars',
      '  and 1 more',
    ])
  })
})
