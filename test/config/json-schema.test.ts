import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { fromJSONSchema } from 'zod'
import { configJsonSchema } from '../../config/json-schema.ts'

const committed: unknown = JSON.parse(
  readFileSync(new URL('../../config/chaperone.schema.json', import.meta.url), 'utf8'),
)
const example = readFileSync(new URL('../../examples/chaperone.yaml', import.meta.url), 'utf8')

describe('configJsonSchema()', () => {
  test('configJsonSchema() is what is committed', () => {
    expect(configJsonSchema()).toEqual(committed)
  })

  test('configJsonSchema() gives a duration as text with its pattern, bounds and default', () => {
    expect(committed).toMatchObject({
      properties: {
        shutdown: {
          properties: {
            drain: {
              type: 'string',
              pattern: String.raw`^(\d{1,9})(ms|s|m|h|d)$`,
              default: '20s',
              description: expect.stringMatching(/From 0 ms to 600000 ms\.$/),
            },
          },
        },
      },
    })
  })

  test('configJsonSchema() allows no unknown key anywhere', () => {
    const objects = objectSchemas(committed)
    expect(objects.length).toBeGreaterThan(20)
    expect(objects.filter((schema) => schema['additionalProperties'] !== false)).toEqual([])
  })

  test('configJsonSchema() accepts the example and refuses a slip in it', () => {
    const validator = fromJSONSchema(configJsonSchema() as Parameters<typeof fromJSONSchema>[0])
    const value: unknown = parse(example)
    expect(validator.safeParse(value).error).toBeUndefined()
    const slip: unknown = parse(example.replace('drain: 20s', 'drain: 20 s'))
    expect(validator.safeParse(slip).error?.issues.map(({ path }) => path)).toEqual([
      ['shutdown', 'drain'],
    ])
    const unknown: unknown = parse(example.replace('drain:', 'drian:'))
    expect(validator.safeParse(unknown).success).toBe(false)
  })
})

function objectSchemas(node: unknown): readonly Readonly<Record<string, unknown>>[] {
  if (typeof node !== 'object' || node === null) return []
  const inner = Object.values(node).flatMap(objectSchemas)
  return 'type' in node && node.type === 'object' ? [{ ...node }, ...inner] : inner
}
