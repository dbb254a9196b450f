import { readdirSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { compilePolicies, type PolicySource } from '../../policy/cedar.ts'
import { isSystemPolicy } from '../../policy/decide.ts'
import { runCase } from '../../policy/policy-case.ts'
import { readCaseFile } from '../../proxy/case-file.ts'
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

  test('every example decides a case of policy-examples.test.yaml, as it says', () => {
    const sources = blocks.map((text, index) => ({ file: `${index}.cedar`, text }))
    expect(undecided(sources, [new URL('policy-examples.test.yaml', import.meta.url)])).toEqual([])
  })

  test.each([...new Set([...actionsOf(schema), ...entitiesOf(schema), ...contextOf(schema)])])(
    'tells of %s of the schema',
    (name) => expect(page).toContain(`\`${name}\``),
  )
})

describe('examples/', () => {
  const examples = new URL('../../examples/', import.meta.url)
  const files = readdirSync(examples, { recursive: true, encoding: 'utf8' })
  const folders = new Set(files.filter((file) => file.endsWith('.cedar')).map(dirname))

  test('has policies', () => expect(folders.size).toBeGreaterThan(0))

  test.each([...folders])('%s has cases that hold, and each policy decides one', (folder) => {
    const directory = new URL(`${folder}/`, examples)
    const cases = readdirSync(directory).filter((name) => name.endsWith('.test.yaml'))
    const sources = loadPolicyFiles({ directory: fileURLToPath(directory) })
    expect(
      undecided(
        sources,
        cases.map((name) => new URL(name, directory)),
      ),
    ).toEqual([])
  })
})

/** What is wrong: policies that decide no case, and cases that do not hold. */
function undecided(sources: readonly PolicySource[], files: readonly URL[]): readonly string[] {
  const compiled = compilePolicies(sources, { schema })
  if (!compiled.ok) throw new Error(JSON.stringify(compiled.problems))
  using engine = compiled.engine
  const results = files.flatMap((file) => {
    const read = readCaseFile(fileURLToPath(file))
    if (!read.ok) throw new Error(JSON.stringify(read.problems))
    return read.cases.map((one) => runCase(one, engine))
  })
  const deciding = new Set(results.flatMap(({ decision }) => decision.policyIds ?? []))
  return [
    ...results.map(({ difference }) => difference).filter((text) => text !== ''),
    ...engine.policyIds.filter((id) => !deciding.has(id) && !isSystemPolicy(id)),
  ]
}

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
