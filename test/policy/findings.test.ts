import { describe, expect, test } from 'vitest'
import { compilePolicies } from '../../policy/cedar.ts'
import { findSuspicious, formatFinding } from '../../policy/findings.ts'
import { actionGroups } from '../../policy/policy-reach.ts'
import type { Upstream } from '../../policy/types.ts'
import { readText } from '../kit/decide-input.ts'

const schema = readText('chaperone.cedarschema')
const upstreams = new Map<string, Upstream>(
  (
    [
      ['github', 'rest', 'internal'],
      ['tickets', 'mcp', 'confidential'],
      ['payroll', 'rest', 'restricted'],
    ] as const
  ).map(([name, kind, sensitivity]) => [
    name,
    { name, kind, sensitivity, origin: `https://${name}.test` },
  ]),
)

function found(text: string, names?: ReadonlyMap<string, Upstream>): readonly string[] {
  const compiled = compilePolicies([{ file: 'a.cedar', text }], { schema })
  if (!compiled.ok) throw new Error(JSON.stringify(compiled.problems))
  compiled.engine[Symbol.dispose]()
  return findSuspicious(compiled.policies, names ? { upstreams: names } : {}).map(formatFinding)
}

const all = '(principal, action, resource)'
const github = 'resource == Chaperone::Upstream::"github"'

describe('findSuspicious()', () => {
  test.each([
    ['context.method == "GET" && context.method == "PUT"', 'context.method == "GET"', 81],
    ['context.sensitivity > 2 && context.sensitivity < 2', 'context.sensitivity > 2', 81],
    ['context.sensitivity == 1 && context.sensitivity >= 2', 'context.sensitivity == 1', 82],
    ['context.path == "/a" && context.path != "/a"', 'context.path == "/a"', 78],
  ])('finds that a policy never matches: %s', (condition, other, col) => {
    expect(found(`@id("a") permit (principal, action, resource) when { ${condition} };`)).toEqual([
      `a.cedar:1:${col} [never-matches] It cannot hold beside "${other}" (Take one of the two out, or make two policies of it)`,
    ])
  })

  test('finds what an "unless" excludes, and a resource that is two', () => {
    expect(
      found(
        `@id("a") permit ${all} when { context.path == "/a" } unless { context.path == "/a" };`,
      ),
    ).toHaveLength(1)
    expect(
      found(
        `@id("a") permit (principal, action, ${github}) when { resource == Chaperone::Upstream::"tickets" };`,
      ),
    ).toEqual([expect.stringMatching(/^a\.cedar:1:87 \[never-matches\] /)])
  })

  test.each([
    [
      '"http.read"',
      'context.method == "POST"',
      'No http.read has the method "POST" (It is an http.write)',
    ],
    [
      '"http.write"',
      'context.method == "HEAD"',
      'No http.write has the method "HEAD" (It is an http.read)',
    ],
    ['"tools/call"', 'resource.kind == "rest"', 'An upstream of the kind rest has no MCP messages'],
  ])('finds that no %s has %s', (action, condition, message) => {
    const text = `@id("a") permit (principal, action == Chaperone::Action::${action}, resource) when { ${condition} };`
    expect(found(text)).toEqual([expect.stringContaining(message)])
  })

  test('finds an MCP action on an upstream that the configuration calls rest', () => {
    const text = `@id("a") forbid (principal, action == Chaperone::Action::"tools/call", ${github});`
    expect(found(text, upstreams)).toEqual([
      'a.cedar:1:72 [never-matches] An upstream of the kind rest has no MCP messages (Name an http action, or set kind: mcp in the configuration)',
    ])
    expect(found(text)).toEqual([])
  })

  test('finds a permit that a forbid takes away whole', () => {
    const text = `@id("f") forbid (principal in Chaperone::AgentGroup::"spiffe://a", action in Chaperone::Action::"write", resource) when { context.has_query };
@id("p") permit (principal in Chaperone::AgentGroup::"spiffe://a/b", action == Chaperone::Action::"tools/call", resource) when { context.tool == "x" && context.has_query };`
    expect(found(text)).toEqual([
      'a.cedar:2:1 [shadowed-permit] It never permits anything: the forbid "f" (a.cedar:1) covers all of it (Narrow the forbid, or take this permit out)',
    ])
    expect(found(text.replace('spiffe://a/b', 'spiffe://ab'))).toEqual([])
    expect(
      found(text.replace('when { context.has_query }', 'when { context.path == "/" }')),
    ).toEqual([])
    expect(found(text.replace('@id("f")', '@id("f") @mode("shadow")'))).toEqual([])
  })

  test('finds a forbid that another covers, and of two alike the second', () => {
    const wide = `@id("wide") forbid (principal, action in Chaperone::Action::"write", resource);`
    const narrow = `@id("narrow") forbid (principal, action == Chaperone::Action::"http.write", ${github}) when { context.method == "PUT" };`
    const message = expect.stringContaining('"wide" (a.cedar:1) covers all of it (Take it out')
    expect(found(`${wide}\n${narrow}`)).toEqual([message])
    expect(found(`${wide}\n${wide.replace('"wide"', '"twin"')}`)).toEqual([message])
  })

  test('finds a permit for everything where something is restricted', () => {
    const permit = '@id("p") permit (principal, action, resource is Chaperone::Upstream);'
    expect(found(permit, upstreams)).toEqual([
      'a.cedar:1:1 [reaches-restricted] It reaches every upstream, also restricted ones: payroll (Name the upstream, or add: when { resource.sensitivity < 3 })',
    ])
    expect(found(permit, new Map([...upstreams].slice(0, 2)))).toEqual([])
    expect(found(permit.replace(';', ' when { resource.sensitivity < 3 };'), upstreams)).toEqual([])
    expect(found(readText('default.cedar'), upstreams)).toEqual([])
  })

  test('finds an upstream that is not configured, wherever it is named', () => {
    const text = `@id("p") permit (principal, action, ${github.replace('github', 'githb')});
@id("q") permit ${all} when { [Chaperone::Upstream::"github", Chaperone::Upstream::"nowhere-at-all"].contains(resource) };`
    expect(found(text, upstreams)).toEqual([
      'a.cedar:1:49 [unknown-upstream] No upstream of the configuration has the name "githb" (did you mean "github"?)',
      'a.cedar:2:86 [unknown-upstream] No upstream of the configuration has the name "nowhere-at-all" (There are github, tickets, payroll)',
    ])
  })

  test('finds a forbid of writes that leaves out the other writes', () => {
    const text = `@id("f") forbid (principal, action == Chaperone::Action::"http.write", resource);`
    expect(found(text)).toEqual([
      'a.cedar:1:29 [narrow-action] It leaves out websocket.connect, mcp.response and tools/call, which write too (Write action in Chaperone::Action::"write")',
    ])
    expect(found(text.replace(';', ' when { context.method == "DELETE" };'))).toEqual([])
  })

  test('says nothing of the shipped policies', () => {
    const sources = ['system.cedar', 'default.cedar'].map((file) => ({
      file,
      text: readText(file),
    }))
    const compiled = compilePolicies(sources, { schema })
    if (!compiled.ok) throw new Error(JSON.stringify(compiled.problems))
    compiled.engine[Symbol.dispose]()
    expect(findSuspicious(compiled.policies, { upstreams })).toEqual([])
  })
})

describe('actionGroups', () => {
  test('is what the schema says', () => {
    const actions = [...schema.matchAll(/^ *action "([^"]+)" in \["(\w+)"\]/gm)]
    expect(Object.fromEntries(actions.map(([, name = '', group]) => [name, group]))).toEqual(
      actionGroups,
    )
  })
})
