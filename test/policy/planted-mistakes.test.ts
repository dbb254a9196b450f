import { mkdtempSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { compilePolicies } from '../../policy/cedar.ts'
import { formatPolicyProblem } from '../../policy/cedar-source.ts'
import { cedarSchema, loadPolicyFiles } from '../../proxy/policy-files.ts'
import { runPolicy } from '../kit/run-policy.ts'

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'chaperone-mistakes-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

/** Everything that is said of a directory with this file, without the directory's own name. */
function complaintsOf(content: string | Uint8Array): string {
  writeFileSync(join(directory, 'team.cedar'), content)
  return complaints()
}

function complaints(): string {
  try {
    const compiled = compilePolicies(loadPolicyFiles({ directory }), { schema: cedarSchema() })
    if (compiled.ok) compiled.engine[Symbol.dispose]()
    const problems = compiled.ok ? [] : compiled.problems
    return problems.map(formatPolicyProblem).join('\n').replaceAll(`${directory}/`, '')
  } catch (error) {
    return error instanceof Error ? error.message.replaceAll(directory, 'policies') : 'no error'
  }
}

const rule = (condition: string): string =>
  `// The team's rules.\n@id("team/rule")\npermit (principal, action, resource)\nwhen { ${condition} };\n`

const action = (text: string): string =>
  complaintsOf(`@id("a")\npermit (principal, action == ${text}, resource);`)

describe('a mistake in a policy is said with its place and what to do', () => {
  test('a misspelt attribute', () =>
    expect(complaintsOf(rule('context.pth == "/"'))).toMatch(
      /^team\.cedar:4:8 attribute `pth` in context for .* not found \(did you mean `path`\?\)$/,
    ))

  test('a wrong type', () =>
    expect(complaintsOf(rule('context.sensitivity == "high"'))).toBe(
      'team.cedar:4:8 the types Long and String are not compatible (both operands to a `==` expression must have compatible types. Types must be exactly equal to be compatible)',
    ))

  test('a missing id', () =>
    expect(complaintsOf('// One.\n\npermit (principal, action, resource);')).toBe(
      'team.cedar:3:1 Expected an @id of letters, digits and ._/- (Write @id("team/rule") before it)',
    ))

  test('an unknown entity type', () =>
    expect(
      complaintsOf(
        '@id("a")\npermit (principal, action, resource == Chaperone::Upstrem::"github");',
      ),
    ).toBe(
      'team.cedar:2:40 unrecognized entity type `Chaperone::Upstrem` (did you mean `Chaperone::Upstream`?)',
    ))

  test('an unknown action, and a group that is taken for one', () => {
    expect(action('Chaperone::Action::"tool/call"')).toBe(
      'team.cedar:2:30 unrecognized action `Chaperone::Action::"tool/call"` (did you mean `Chaperone::Action::"tools/call"`?)',
    )
    expect(action('Action::"http.read"')).toBe(
      'team.cedar:2:30 unrecognized action `Action::"http.read"` (did you mean `Chaperone::Action::"http.read"`?)',
    )
    expect(action('Chaperone::Action::"read"')).toBe(
      'team.cedar:2:20 The policy is impossible: no request has the group "read" itself as its action (Write action in Chaperone::Action::"read")',
    )
  })

  test('an id that stands twice', () =>
    expect(complaintsOf(`${rule('true')}${rule('context.has_query')}`)).toBe(
      'team.cedar:6:1 The @id "team/rule" stands twice (First at team.cedar:2: give one of them another id)',
    ))

  test('a forbid that would fail, and so be skipped by Cedar alone', () =>
    expect(complaintsOf(rule('context.task.on_behalf_of == "x"').replace('permit', 'forbid'))).toBe(
      "team.cedar:4:8 unable to guarantee safety of access to optional attribute `on_behalf_of` on entity type `Chaperone::Task` (try testing for the attribute's presence with `e has on_behalf_of && ..`)",
    ))

  test('a forbid that fails on some values only, once a case meets one', async () => {
    const text = rule('context.sensitivity + 9223372036854775806 > 0').replace('permit', 'forbid')
    expect(complaintsOf(text)).toBe('')
    const cases = join(directory, 'cases.yaml')
    writeFileSync(
      cases,
      'cases:\n  - { name: one, request: GET /, expect: allow, sensitivity: restricted }\n',
    )
    expect((await runPolicy('test', cases, '-d', directory)).out).toContain(
      'FAIL  one: expected allow, got deny by no policy (policy evaluation error: team/rule)',
    )
    expect((await runPolicy('explain', cases, '-d', directory)).out).toContain(
      `ERRS   ${directory}/team.cedar:4:8  when context.sensitivity + 9223372036854775806 > 0: integer overflow`,
    )
  })

  test('a slot of a template', () =>
    expect(complaintsOf('@id("a")\npermit (principal == ?principal, action, resource);')).toBe(
      'team.cedar:2:22 Templates are not supported (Write the entity itself in place of the slot)',
    ))

  test('a huge set', () => {
    const names = Array.from({ length: 3000 }, (_, index) => `"user-${index}"`).join(', ')
    expect(complaintsOf(rule(`[${names}].contains(context.purpose)`))).toBe(
      'team.cedar:2:1 Expected at most 16384 bytes in a policy (In place of a long set, use a group, or "like" with what its members share)',
    )
  })

  test('a file that is not UTF-8', () => {
    const text = '// caf\u00e9\n@id("\u00e9") permit (principal, action, resource);'
    expect(complaintsOf(Buffer.from(text, 'latin1'))).toBe(
      'policies/team.cedar:1:7 The file is not UTF-8: save it as UTF-8',
    )
    const good = Buffer.from('// \ufffd \u{1f600}\n// ', 'utf8')
    expect(complaintsOf(Buffer.concat([good, Buffer.from([0xc3, 0x28])]))).toBe(
      'policies/team.cedar:2:4 The file is not UTF-8: save it as UTF-8',
    )
  })

  test('a file that is gone when it is read, and a directory that is empty', () => {
    symlinkSync('nowhere', join(directory, 'team.cedar'))
    expect(complaints()).toBe(
      'policies/team.cedar: The file does not exist any more: put it back, or take its name out',
    )
    unlinkSync(join(directory, 'team.cedar'))
    expect(complaints()).toBe(
      'policies: Expected *.cedar files. To refuse everything, put in a policy that forbids everything',
    )
  })

  test('an annotation that nobody reads', () =>
    expect(complaintsOf('@id("a") @resaon("x") permit (principal, action, resource);')).toBe(
      'team.cedar:1:10 Unknown annotation @resaon (did you mean @reason?)',
    ))
})
