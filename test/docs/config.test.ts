import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { configPage, readSettings } from '../../docs/generate-config.ts'

const page = readFileSync(new URL('../../docs/config.md', import.meta.url), 'utf8')

describe('docs/config.md', () => {
  test('is what node docs/generate-config.ts writes', () => {
    expect(page).toBe(configPage())
  })

  test.each(readSettings().map(({ path }) => path))('has a row for %s', (path) => {
    expect(page).toContain(`| \`${path}\` |`)
  })

  test.each([
    ['limits.maxMcpBytes', { kind: 'size', fallback: '`256KiB`', bounds: '1KiB to 4MiB' }],
    ['revocation.staleAfterWrites', { kind: 'duration', fallback: '`1s`', bounds: '100ms to 30s' }],
    ['revocation.source', { kind: '`redis`, `embedded`', fallback: 'required' }],
    ['routes[].host', { fallback: 'required in its form' }],
    ['grants.file', { fallback: 'optional' }],
    ['upstreams[].credential.inject.secret.file', { fallback: 'required' }],
  ])('tells kind, default and bound of %s from the schema', (path, said) => {
    expect(readSettings().find((setting) => setting.path === path)).toMatchObject(said)
  })

  test('has every name of the JSON Schema in one of its rows', () => {
    const names = [...namesOf(schema)]
    const rows = page.match(/^\| `[^`]+` \|/gm)?.join('\n') ?? ''
    expect(names.length).toBeGreaterThan(70)
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(rows))).toEqual([])
  })
})

const schema: unknown = JSON.parse(
  readFileSync(new URL('../../config/chaperone.schema.json', import.meta.url), 'utf8'),
)

/** Found without the generator: its own walk might pass something by. */
function namesOf(node: unknown, found = new Set<string>()): ReadonlySet<string> {
  if (typeof node !== 'object' || node === null) return found
  for (const [key, value] of Object.entries(node)) {
    if (key === 'properties' && typeof value === 'object' && value !== null) {
      for (const name of Object.keys(value)) found.add(name)
    }
    namesOf(value, found)
  }
  return found
}
