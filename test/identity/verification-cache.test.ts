import { describe, expect, test } from 'vitest'
import { VerificationCache } from '../../identity/verification-cache.ts'
import { deny } from '../../policy/denial.ts'

describe('VerificationCache.verify()', () => {
  test('runs once for one text, and again for another', async () => {
    const cache = new VerificationCache<{ n: number }>()
    let runs = 0
    const run = () => Promise.resolve({ n: ++runs })
    expect(await cache.verify('a', run)).toEqual({ n: 1 })
    expect(await cache.verify('a', run)).toEqual({ n: 1 })
    expect(await cache.verify('b', run)).toEqual({ n: 2 })
  })

  test('shares one run among those who come together', async () => {
    const cache = new VerificationCache<object>()
    let runs = 0
    const run = async () => {
      runs += 1
      await new Promise((resolve) => setTimeout(resolve, 5))
      return {}
    }
    await Promise.all(Array.from({ length: 50 }, () => cache.verify('a', run)))
    expect(runs).toBe(1)
  })

  test('never remembers a denial', async () => {
    const cache = new VerificationCache<object>()
    await cache.verify('a', () => Promise.resolve(deny('identity-invalid', 'x')))
    expect(cache.size).toBe(0)
    expect(await cache.verify('a', () => Promise.resolve({ ok: true }))).toEqual({ ok: true })
  })

  test('never remembers a fault, and passes it on', async () => {
    const cache = new VerificationCache<object>()
    await expect(cache.verify('a', () => Promise.reject(new Error('broken')))).rejects.toThrow(
      'broken',
    )
    expect(await cache.verify('a', () => Promise.resolve({ ok: true }))).toEqual({ ok: true })
  })

  test('asks on every hit whether the result still holds', async () => {
    let current = true
    const cache = new VerificationCache<{ n: number }>({ isCurrent: () => current })
    let runs = 0
    const run = () => Promise.resolve({ n: ++runs })
    await cache.verify('a', run)
    current = false
    await cache.verify('a', run)
    expect(runs).toBe(2)
  })

  test('gives a value that nobody can change for the next request', async () => {
    const cache = new VerificationCache<{ list: string[] }>()
    const value = await cache.verify('a', () => Promise.resolve({ list: ['x'] }))
    expect(() => 'list' in value && value.list.push('y')).toThrow(TypeError)
  })

  test('holds no more than its bound', async () => {
    const cache = new VerificationCache<object>({ maxEntries: 10 })
    for (let n = 0; n < 100; n++) await cache.verify(`text ${n}`, () => Promise.resolve({}))
    expect(cache.size).toBe(10)
  })
})
