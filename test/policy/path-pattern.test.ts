import { describe, expect, test } from 'vitest'
import { coversPattern, isPathPattern, matchesPath } from '../../policy/path-pattern.ts'
import { isSpiffePattern, matchesSpiffePattern } from '../../policy/spiffe-id.ts'
import type { SpiffeId } from '../../policy/types.ts'

/** Every text of up to so many segments, each of these. */
function texts(segments: readonly string[], most: number): string[] {
  let longest = segments.map((segment) => `/${segment}`)
  const all = [...longest]
  for (let length = 2; length <= most; length += 1) {
    longest = longest.flatMap((text) => segments.map((segment) => `${text}/${segment}`))
    all.push(...longest)
  }
  return all
}

describe('coversPattern()', () => {
  test('holds of path patterns exactly when the wide one matches whatever the narrow one does', () => {
    const patterns = texts(['x', 'y', '', '*', '**'], 3).filter(isPathPattern)
    const paths = texts(['x', 'y', 'z', ''], 5)
    const matched = new Map(
      patterns.map((pattern) => [pattern, paths.filter((path) => matchesPath(pattern, path))]),
    )
    const wrong: string[] = []
    for (const wide of patterns) {
      const all = new Set(matched.get(wide))
      for (const narrow of patterns) {
        const isNarrower = matched.get(narrow)?.every((path) => all.has(path))
        if (coversPattern(wide, narrow) !== isNarrower) wrong.push(`${wide} over ${narrow}`)
      }
    }
    expect(patterns.length).toBeGreaterThan(50)
    expect(wrong).toEqual([])
  })

  test('holds of SPIFFE ID patterns exactly when the wide one matches whatever the narrow one does', () => {
    const start = 'spiffe://a.org'
    const patterns = texts(['x', 'y', '*', '**'], 3)
      .map((text) => start + text)
      .filter(isSpiffePattern)
    const ids = texts(['x', 'y', 'z'], 4).map((text): SpiffeId => `spiffe://a.org${text}`)
    const wrong: string[] = []
    for (const wide of patterns) {
      for (const narrow of patterns) {
        const isNarrower = ids.every(
          (id) => !matchesSpiffePattern(id, narrow) || matchesSpiffePattern(id, wide),
        )
        if (coversPattern(wide, narrow) !== isNarrower) wrong.push(`${wide} over ${narrow}`)
      }
    }
    expect(patterns.length).toBeGreaterThan(30)
    expect(wrong).toEqual([])
    expect(coversPattern('spiffe://a.org/**', 'spiffe://b.org/x')).toBe(false)
  })
})
