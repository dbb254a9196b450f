import { readFileSync } from 'node:fs'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { parseConfig } from '../../config/load.ts'
import { formatProblem } from '../../config/problem.ts'
import { preset } from '../../config/preset-schema.ts'
import { compilePolicies, type PolicyEngine } from '../../policy/cedar.ts'
import { decide, type DecideInput } from '../../policy/decide.ts'
import { compilePresets } from '../../policy/preset.ts'
import type { Operation } from '../../policy/types.ts'
import { call, grant, http, input, list, mcp, readText, websocket } from '../kit/decide-input.ts'
import { grantChain } from '../../policy/grant.ts'
import { names } from '../kit/tokens.ts'

const schema = readText('chaperone.cedarschema')
const chain = grantChain(
  grant({
    destinations: [
      {
        type: 'http_api',
        locations: [names.upstream],
        actions: ['GET', 'POST', 'DELETE'],
        paths: ['/**'],
      },
      { type: 'ws', locations: ['wss://api.example.org'], paths: ['/**'] },
      { type: 'mcp_server', locations: [`${names.upstream}/mcp`], tools: ['*'] },
    ],
  }),
)

function engineOf(...rules: readonly object[]): PolicyEngine {
  const presets = rules.map((rule, index) => v.parse(preset, { id: `p${index}`, ...rule }))
  const compiled = compilePolicies([compilePresets(presets, { file: 'presets' })], { schema })
  if (!compiled.ok) throw new Error(JSON.stringify(compiled.problems))
  return compiled.engine
}

const asks: Readonly<Record<string, Partial<DecideInput> & { readonly operation: Operation }>> = {
  'GET /v1/a': { operation: http('GET') },
  'GET /v1': { operation: http('GET', '/v1') },
  'GET /v10/a': { operation: http('GET', '/v10/a') },
  'POST /v1/a': { operation: http('POST') },
  'DELETE /v1/a': { operation: http('DELETE') },
  'ws /v1/a': { operation: websocket() },
  'tools/list': { operation: list(), upstream: mcp },
  get_user: { operation: call('get_user'), upstream: mcp },
  drop: { operation: call('drop'), upstream: mcp },
}

function allowed(...rules: readonly object[]): readonly string[] {
  using engine = engineOf(...rules)
  return Object.entries(asks)
    .filter(([, ask]) => decide(input({ engine, chain, ...ask })).outcome === 'allow')
    .map(([name]) => name)
}

const every = Object.keys(asks)

describe('compilePresets()', () => {
  test.each([
    [{}, every],
    [{ access: 'read' }, ['GET /v1/a', 'GET /v1', 'GET /v10/a', 'tools/list']],
    [{ access: 'write' }, ['POST /v1/a', 'DELETE /v1/a', 'ws /v1/a', 'get_user', 'drop']],
    [{ methods: ['POST', 'DELETE'] }, ['POST /v1/a', 'DELETE /v1/a']],
    [{ paths: ['/v1/**'] }, ['GET /v1/a', 'POST /v1/a', 'DELETE /v1/a']],
    [{ paths: ['/v1'] }, ['GET /v1']],
    [{ paths: ['/**'], access: 'read' }, ['GET /v1/a', 'GET /v1', 'GET /v10/a']],
    [{ paths: ['/v1', '/v10/**'], methods: ['GET'] }, ['GET /v1', 'GET /v10/a']],
    [{ tools: ['get_*'] }, ['get_user']],
    [{ tools: ['drop', 'get_user'] }, ['get_user', 'drop']],
    [{ upstreams: ['files'] }, ['tools/list', 'get_user', 'drop']],
    [
      { upstreams: ['files', 'api'], access: 'read', methods: ['GET'] },
      ['GET /v1/a', 'GET /v1', 'GET /v10/a'],
    ],
    [{ upstreams: ['other'] }, []],
    [{ agents: [names.agent] }, every],
    [{ agents: ['spiffe://elsewhere.org', `spiffe://${names.trustDomain}`] }, every],
    [{ agents: [`${names.agent}x`] }, []],
    [{ maxSensitivity: 'internal' }, every],
    [{ maxSensitivity: 'public' }, []],
  ])('allows by %j', (rule, expected) => {
    expect(allowed({ effect: 'allow', ...rule })).toEqual(expected)
  })

  test('forbids over every allow, with the reason for the model', () => {
    const rules = [
      { effect: 'allow' },
      { effect: 'forbid', access: 'write', reason: 'Say "please" \\ \u2028 wait.' },
    ] as const
    expect(allowed(...rules)).toEqual(allowed({ effect: 'allow', access: 'read' }))
    using engine = engineOf(...rules)
    expect(decide(input({ engine, operation: http('POST') }))).toMatchObject({
      policyIds: ['preset/p1'],
      reason: 'Say "please" \\ \u2028 wait.',
    })
  })

  test('keeps to its own policies, whatever its text holds', () => {
    const hostile = 'spiffe://a"); permit (principal, action, resource); //'
    using engine = engineOf({ effect: 'forbid', agents: [hostile], reason: '"\n@id("x")' })
    expect(engine.policyIds).toEqual(['preset/p0'])
  })
})

describe('policy.presets', () => {
  const example = readFileSync(new URL('../../examples/chaperone.yaml', import.meta.url), 'utf8')
  const problemsOf = (...rules: readonly string[]): readonly string[] => {
    const lines = rules.map((rule) => `\n    - ${rule}`).join('')
    const text = example.replace('directory: policies', `presets:${lines}`)
    const result = parseConfig(text, 'c.yaml')
    return result.ok
      ? []
      : result.problems.map((one) => formatProblem(one).replace(/^c\.yaml:\d+:/, ''))
  }

  test('takes what docs/policy.md shows', () => {
    expect(problemsOf('{ id: reads, effect: allow, access: read }')).toEqual([])
  })

  test.each([
    [
      '{ id: a, effect: allow, upstreams: [githb] }',
      '43 policy.presets[0].upstreams[0]: Expected the name of an upstream; did you mean "github"?',
    ],
    ['{ id: a, effect: permit }', '24 policy.presets[0].effect: Expected allow or forbid'],
    [
      '{ id: a, effect: allow, path: [/a] }',
      '31 policy.presets[0].path: Unknown setting; did you mean "paths"?',
    ],
    [
      '{ id: a, effect: allow, paths: [/a/*/b] }',
      '39 policy.presets[0].paths[0]: Expected a path of letters, digits and ._~-, perhaps with "/**" at its end: other characters have two spellings',
    ],
    // `/users/%40me` is the same to the upstream, and no text of Cedar matches both.
    [
      '{ id: a, effect: forbid, paths: [/users/@me/**] }',
      '40 policy.presets[0].paths[0]: Expected a path of letters, digits and ._~-, perhaps with "/**" at its end: other characters have two spellings',
    ],
    [
      '{ id: a, effect: allow, tools: [x], methods: [GET] }',
      '7 policy.presets[0]: Expected either tools, or access, methods and paths',
    ],
    ['{ id: a, effect: allow, tools: [] }', '38 policy.presets[0].tools: Expected at least one'],
  ])('says what is wrong with %s', (rule, problem) => {
    expect(problemsOf(rule)).toEqual([problem])
  })

  test('refuses an id that stands twice', () => {
    const rule = '{ id: a, effect: allow }'
    expect(problemsOf(rule, rule)).toEqual([
      '13 policy.presets[1].id: The id is taken by another preset',
    ])
  })
})
