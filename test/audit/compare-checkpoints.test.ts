import { describe, expect, test } from 'vitest'
import { compareCheckpoints, type KeptCheckpoint } from '../../audit/compare-checkpoints.ts'

const hash = (digit: number): string => String(digit).repeat(64)
const link = (digit: number): string => String(digit).repeat(40)
const at = '2026-11-24T12:00:00.000Z'

function kept(instance: string, seq: number, place: number): KeptCheckpoint {
  const fleet = `${place}:${link(place)}`
  return { instance, seq, hash: hash(seq), sig: '', fleet, atMs: Date.parse(at) }
}

/** `a` has signed up to record 2, `b` up to record 3. */
const store = { head: `7:${link(7)}`, checkpoints: [kept('a', 2, 6), kept('b', 3, 7)] }

function problemsOf(
  records: readonly (readonly [
    instance: string,
    seq: number,
    hash?: string | undefined,
    fleet?: string,
  ])[],
): Promise<readonly string[]> {
  const comparison = compareCheckpoints(store)
  for (const [instance, seq, other = hash(seq), fleet] of records) {
    comparison.add({ instance, seq, hash: other, fleet })
  }
  return comparison.problems()
}

const a = [
  ['a', 1],
  ['a', 2],
] as const

describe('compareCheckpoints()', () => {
  test('finds nothing when every record that was signed is there, and more came since', async () => {
    expect(await problemsOf([...a, ['a', 3], ['b', 1], ['b', 2], ['b', 3]])).toEqual([])
  })

  test('names the sidecar when its file is missing', async () => {
    expect(await problemsOf(a)).toEqual([
      `missing file: sidecar b signed up to record 3 at ${at}, and no file has its records`,
    ])
  })

  test('names the end when the tail of a file is missing', async () => {
    expect(await problemsOf([...a, ['b', 1], ['b', 2]])).toEqual([
      `missing tail: sidecar b signed up to record 3 at ${at}, and its file ends at 2`,
    ])
  })

  test('says that it was rewritten when another record stands there', async () => {
    expect(await problemsOf([...a, ['b', 3, hash(9)], ['b', 4]])).toEqual([
      `rewritten: sidecar b signed up to record 3 at ${at}, and the file has another record there`,
    ])
  })

  test.each([
    ['ends before', `8:${link(8)}`],
    ['has another one at', `6:${link(5)}`],
  ])('says that the store was changed when it %s what a file has seen of it', async (_, fleet) => {
    const place = fleet.slice(0, 1)
    expect(await problemsOf([...a, ['b', 3, undefined, fleet]])).toEqual([
      `the store lost or changed checkpoints: record 3 of sidecar b has seen its position ${place}`,
    ])
    const same = await problemsOf([...a, ['b', 3, undefined, `6:${link(6)}`]])
    expect(same).toEqual([])
  })
})
