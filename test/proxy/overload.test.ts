import { describe, expect, test } from 'vitest'
import { readHeap, watchOverload } from '../../proxy/overload.ts'

interface Watched {
  heap: number
  shrunk: number
  readonly said: string[]
}

function watch() {
  const watched: Watched = { heap: 0, shrunk: 0, said: [] }
  const say = (fields: Readonly<Record<string, unknown>>): void =>
    void watched.said.push(String(fields['state']))
  const overload = watchOverload({
    readHeap: () => watched.heap,
    shrink: () => void (watched.shrunk += 1),
    log: { warn: say, info: say },
  })
  const lookAt = (heap: number): string => {
    watched.heap = heap
    overload.look()
    return overload.state
  }
  return { watched, lookAt, [Symbol.dispose]: () => overload[Symbol.dispose]() }
}

describe('watchOverload()', () => {
  test('shrinks from 95 % on and refuses from 98 % on, and takes both back', () => {
    using watching = watch()
    const { lookAt } = watching
    expect([0.5, 0.949, 0.95, 0.979, 0.98, 0.96, 0.9].map(lookAt)).toEqual([
      'none',
      'none',
      'shrink',
      'shrink',
      'refuse',
      'shrink',
      'none',
    ])
  })

  test('drops what it can at every look while the heap is full, and says each change once', () => {
    using watching = watch()
    const { watched, lookAt } = watching
    for (const heap of [0.95, 0.96, 0.99, 0.99, 0.1, 0.1]) lookAt(heap)
    expect(watched.shrunk).toBe(4)
    expect(watched.said).toEqual(['shrink', 'refuse', 'none'])
  })
})

describe('readHeap()', () => {
  test('grows with what is held', () => {
    const before = readHeap()
    const held = Array.from({ length: 2_000_000 }, (_, n) => ({ n }))
    expect(readHeap()).toBeGreaterThan(before)
    expect(readHeap()).toBeLessThan(1)
    expect(held).toHaveLength(2_000_000)
  })
})
