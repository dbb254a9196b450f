import { describe, expect, test } from 'vitest'
import { descendants, flatten, readTask, taskForest, type StoredTask } from '../../cli/task-tree.ts'
import { childClaims, names, signGrant, signingKey } from '../kit/tokens.ts'

function task(txn: string, ...ancestors: readonly string[]): StoredTask {
  return { txn, agent: names.agent, purpose: 'p', expiresAtMs: 1, ancestors }
}

function shape(tasks: readonly StoredTask[]): readonly string[] {
  return flatten(taskForest(tasks)).map(([{ txn }, depth]) => '-'.repeat(depth) + txn)
}

describe('taskForest()', () => {
  test('puts each task below its parent, in the order in which they came', () => {
    const tasks = [task('c', 'a', 'b'), task('d', 'a'), task('x'), task('b', 'a'), task('a')]
    expect(shape(tasks)).toEqual(['x', 'a', '-d', '-b', '--c'])
  })

  test('leaves no task out: not one without its parent, not two that are parents of each other', () => {
    expect(shape([task('c', 'gone')])).toEqual(['c'])
    expect(shape([task('a', 'b'), task('b', 'a'), task('c', 'c')])).toEqual(['a', '-b', 'c'])
    const endless = Array.from({ length: 5000 }, (_, index) => task(`${index + 1}`, `${index}`))
    expect(new Set(shape(endless)).size).toBe(5000)
  })
})

test('descendants() gives all that hangs on the task, and neither it nor its siblings', () => {
  const tasks = [task('a'), task('b', 'a'), task('c', 'a', 'b'), task('d', 'a'), task('e', 'd2')]
  const shown = (txn: string): readonly string[] =>
    flatten(descendants(tasks, txn)).map(([one, depth]) => '-'.repeat(depth) + one.txn)
  expect(shown('a')).toEqual(['b', '-c', 'd'])
  expect(shown('b')).toEqual(['c'])
  expect(shown('e')).toEqual([])
})

describe('readTask()', () => {
  test('reads what a grant says, and takes anything else for unreadable', async () => {
    const key = await signingKey()
    const root = signGrant(key, { claims: { txn: 'root' } })
    const compact = signGrant(key, { claims: childClaims(root, { sub: names.agent, txn: 'leaf' }) })
    expect(readTask({ txn: 'leaf', compact, expiresAtMs: 7 })).toEqual({
      txn: 'leaf',
      agent: names.agent,
      purpose: 'invoice-check',
      expiresAtMs: 7,
      ancestors: ['root'],
    })
    const odd = signGrant(key, { claims: { sub: 1, anc: 'x' } })
    for (const text of ['no grant', odd])
      expect(readTask({ txn: 'x', compact: text, expiresAtMs: 7 })).toMatchObject({
        agent: undefined,
        ancestors: [],
      })
  })
})
