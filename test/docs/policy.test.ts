import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { compilePolicies } from '../../policy/cedar.ts'
import { cedarSchema, loadPolicyFiles } from '../../proxy/policy-files.ts'

const page = readFileSync(new URL('../../docs/policy.md', import.meta.url), 'utf8')
const blocks = [...page.matchAll(/```cedar\n(.*?)```/gs)].map(([, text = '']) => text)
const schema = cedarSchema()

describe('docs/policy.md', () => {
  test('has examples', () => expect(blocks.length).toBeGreaterThanOrEqual(5))

  test.each(blocks.map((text) => [firstIdOf(text), text] as const))(
    'the example %s compiles beside the shipped policies',
    (id, text) => {
      const result = compilePolicies([...loadPolicyFiles({}), { file: `${id}.cedar`, text }], {
        schema,
      })
      if (result.ok) result.engine[Symbol.dispose]()
      expect(result).toMatchObject({ ok: true })
    },
  )

  test('all examples together compile', () => {
    const sources = blocks.map((text, index) => ({ file: `${index}.cedar`, text }))
    const result = compilePolicies(sources, { schema })
    if (result.ok) result.engine[Symbol.dispose]()
    expect(result).toMatchObject({ ok: true })
  })

  test.each([...new Set([...actionsOf(schema), ...entitiesOf(schema), ...contextOf(schema)])])(
    'tells of %s of the schema',
    (name) => expect(page).toContain(`\`${name}\``),
  )
})

function firstIdOf(text: string): string {
  return /@id\("([^"]+)"\)/.exec(text)?.[1] ?? 'unnamed'
}

function actionsOf(text: string): readonly string[] {
  return [...text.matchAll(/^ *action "([^"]+)"/gm)].map(([, name = '']) => name)
}

function entitiesOf(text: string): readonly string[] {
  return [...text.matchAll(/^ *entity (\w+)/gm)].map(([, name = '']) => name)
}

/** Every attribute of an entity or of a context. */
function contextOf(text: string): readonly string[] {
  return [...text.matchAll(/^ {4}(\w+)\??: /gm)].map(([, name = '']) => name)
}
