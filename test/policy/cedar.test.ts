import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { CedarRequest } from '../../policy/cedar-request.ts'
import {
  buildPolicySet,
  compilePolicies,
  type PolicyEngine,
  type PolicyProblem,
} from '../../policy/cedar.ts'
import { createEngine } from '../../policy/cedar-engine.ts'

const folder = new URL('../../policy/cedar/', import.meta.url)
const schema = readFileSync(new URL('chaperone.cedarschema', folder), 'utf8')
const shipped = ['system.cedar', 'default.cedar'].map((file) => ({
  file,
  text: readFileSync(new URL(file, folder), 'utf8'),
}))

const permitAll = '@id("p") permit (principal, action, resource);'

describe('compilePolicies()', () => {
  test('compiles the shipped policies', () => {
    using engine = compiled(shipped)
    expect(engine.healthy).toBe(true)
    expect(engine.policySetSha).toMatch(/^[0-9a-f]{64}$/)
  })

  test('names file, line and column of an attribute that nobody sets, once, with a hint', () => {
    const text =
      '// one\n@id("a")\npermit (principal, action, resource)\nwhen { context.pth == "/" };'
    const [problem, ...others] = problemsOf([{ file: 'team.cedar', text }])
    expect(others).toEqual([])
    expect(problem).toMatchObject({ file: 'team.cedar', line: 4, col: 8 })
    expect(problem?.message).toContain('attribute `pth`')
    expect(problem?.hint).toBe('did you mean `path`?')
  })

  test('counts characters when text beyond ASCII stands before the error', () => {
    const text =
      '@id("ok") permit (principal, action, resource);\n' +
      '// 日本 😀\n' +
      '@id("a") forbid (principal, action, resource) when { context.path == "日本😀" && context.nope };'
    const [problem] = problemsOf([{ file: 'a.cedar', text }])
    const column = Array.from((text.split('\n')[2] ?? '').split('context.nope')[0] ?? '').length + 1
    expect(problem).toMatchObject({ line: 3, col: column })
  })

  test('places a syntax error, also behind text beyond ASCII', () => {
    const text = '@id("é") permit (principal, action == Chaperone::Action::"é"resource);'
    expect(problemsOf([{ file: 'a.cedar', text }])).toMatchObject([
      { file: 'a.cedar', line: 1, col: 61, message: expect.stringContaining('unexpected token') },
    ])
  })

  test.each([
    ['permit (principal, action, resource);'],
    ['@id permit (principal, action, resource);'],
    ['@id("a b") permit (principal, action, resource);'],
    ['@id("(engine)") permit (principal, action, resource);'],
  ])('requires a plain @id: %s', (text) => {
    expect(problemsOf([{ file: 'a.cedar', text }])).toMatchObject([
      { line: 1, col: 1, message: expect.stringContaining('Expected an @id') },
    ])
  })

  test('refuses an id that stands twice and says where it stood first', () => {
    const problems = problemsOf([
      { file: 'a.cedar', text: `\n${permitAll}` },
      { file: 'b.cedar', text: `\n\n${permitAll}` },
    ])
    expect(problems).toEqual([
      {
        file: 'b.cedar',
        line: 3,
        col: 1,
        message: 'The @id "p" stands twice',
        hint: 'First at a.cedar:2: give one of them another id',
      },
    ])
  })

  test('refuses a template', () => {
    const text = '\n@id("t") permit (principal == ?principal, action, resource);'
    expect(problemsOf([{ file: 'a.cedar', text }])).toMatchObject([
      { line: 2, col: 31, message: 'Templates are not supported' },
    ])
  })

  test('refuses the function that validates clean and always fails', () => {
    const text = '@id("u") permit (principal, action, resource) when { unknown("a") };'
    expect(problemsOf([{ file: 'a.cedar', text }])).toMatchObject([
      { message: 'The function "unknown" is not supported' },
    ])
  })

  test('accepts a record with a member of that name', () => {
    const text = '@id("u") permit (principal, action, resource) when { {unknown: true}.unknown };'
    using engine = compiled([{ file: 'a.cedar', text }])
    expect(engine.authorize(request()).decision).toBe('allow')
  })

  test('takes no harm from policies that break the engine they are tried in', () => {
    const forms = ['&&', '+', '==', '||'].map((link) => Array(1500).fill('1').join(` ${link} `))
    for (const body of [...forms, `context${'.a'.repeat(3000)}`, `${'!'.repeat(5)}true`]) {
      expect(problemsOf([{ file: 'a.cedar', text: when(body) }]).length).toBeGreaterThan(0)
    }
    using engine = compiled([{ file: 'a.cedar', text: permitAll }])
    expect(engine.authorize(request()).decision).toBe('allow')
  })

  test('refuses a policy that can never apply', () => {
    const text = '@id("i") permit (principal, action, resource) when { false };'
    expect(problemsOf([{ file: 'a.cedar', text }])[0]?.message).toContain('impossible')
  })

  test('refuses what Cedar would parse and could not evaluate', () => {
    const chain = Array(120).fill('context.has_query').join(' && ')
    const deep = `${'('.repeat(400)}true${')'.repeat(400)}`
    const long = `"${'x'.repeat(17_000)}" == "x"`
    expect(problemsOf([{ file: 'a.cedar', text: when(chain) }])[0]?.message).toContain('shorter')
    expect(problemsOf([{ file: 'a.cedar', text: when(deep) }])[0]?.message).toContain('brackets')
    expect(problemsOf([{ file: 'a.cedar', text: when(long) }])[0]?.message).toContain('bytes')
  })

  test('refuses too many files, policies and bytes', () => {
    const files = Array.from({ length: 257 }, (_, i) => ({ file: `${i}.cedar`, text: '' }))
    expect(problemsOf(files)).toMatchObject([
      { file: '256.cedar', message: 'Expected at most 256 files' },
    ])
    const text = Array.from({ length: 5001 }, (_, i) => permitAll.replace('"p"', `"p${i}"`)).join(
      '\n',
    )
    expect(problemsOf([{ file: 'a.cedar', text }])).toMatchObject([
      { line: 5001, message: 'Expected at most 5000 policies' },
    ])
    const big = { file: 'big.cedar', text: `// ${'é'.repeat(131_072)}` }
    expect(problemsOf([big])[0]?.message).toBe('Expected at most 262144 bytes in a file')
  }, 60_000)

  test('keeps a semicolon, a quote and slashes in text and comments inside their policy', () => {
    const text = `// ; " (\n@id("a") @reason("see \\"https://x\\"; ok // no") ${permitAll.slice(9)}\n@id("b") ${permitAll.slice(9)}`
    using engine = compiled([{ file: 'a.cedar', text }])
    expect(engine.authorize(request())).toMatchObject({
      policyIds: ['a', 'b'],
      reason: 'see "https://x"; ok // no',
    })
  })

  test('ends a comment where Cedar ends it, so that no policy hides behind one', () => {
    const text = `${permitAll}\n// note\r@id("f") forbid (principal, action, resource);`
    using engine = compiled([{ file: 'a.cedar', text }])
    expect(engine.authorize(request())).toMatchObject({ decision: 'deny', policyIds: ['f'] })
  })

  test('reports a schema that is none', () => {
    const result = compilePolicies(shipped, { schema: 'namespace Chaperone {\n nonsense' })
    expect(result).toMatchObject({
      ok: false,
      problems: [{ file: 'chaperone.cedarschema', line: 2 }],
    })
  })

  test('names the same rules alike wherever they lie, and other rules otherwise', () => {
    const [system, byDefault] = shipped
    if (!system || !byDefault) throw new Error('no shipped policies')
    using one = compiled([system, byDefault])
    using same = compiled([byDefault, { ...system, file: '/elsewhere/system.cedar' }])
    using less = compiled([byDefault])
    expect(same.policySetSha).toBe(one.policySetSha)
    expect(less.policySetSha).not.toBe(one.policySetSha)
  })
})

describe('authorize()', () => {
  test('denies without a determining policy when nothing permits', () => {
    using engine = compiled([])
    expect(engine.authorize(request())).toEqual({ decision: 'deny', policyIds: [], errors: [] })
  })

  test('denies with the reason of the forbid that decides', () => {
    const text = `${permitAll} @id("f") @reason("Not on my watch.") forbid (principal, action, resource);`
    using engine = compiled([{ file: 'a.cedar', text }])
    expect(engine.authorize(request())).toEqual({
      decision: 'deny',
      policyIds: ['f'],
      errors: [],
      reason: 'Not on my watch.',
    })
  })

  test('denies when a forbid fails, which Cedar alone would skip', () => {
    const overflow = 'context.sensitivity + 9223372036854775807 > 0'
    const text = `${permitAll} @id("f") forbid (principal, action, resource) when { ${overflow} };`
    using engine = compiled([{ file: 'a.cedar', text }])
    expect(engine.authorize(request())).toEqual({
      decision: 'deny',
      policyIds: ['p'],
      errors: ['f'],
    })
  })

  test('denies a request that is not of the schema', () => {
    using engine = compiled([{ file: 'a.cedar', text: permitAll }])
    const { context, ...rest } = request()
    expect(engine.authorize({ ...rest, context: { ...context, extra: true } })).toMatchObject({
      decision: 'deny',
      errors: ['(request)'],
    })
  })

  test('keeps engines apart, and a closed one denies', () => {
    using all = compiled([{ file: 'a.cedar', text: permitAll }])
    const none = compiled([])
    expect(all.authorize(request()).decision).toBe('allow')
    expect(none.authorize(request()).decision).toBe('deny')
    none[Symbol.dispose]()
    none[Symbol.dispose]()
    expect(none.authorize(request()).errors).toEqual(['(engine)'])
    expect(all.authorize(request()).decision).toBe('allow')
  })

  test('survives what makes Cedar throw, however often', () => {
    const { engine, replaced } = watched(permitAll)
    const { context, ...rest } = request()
    for (let n = 0; n < 5_000; n += 1) {
      const hostile = { ...rest, context: { ...context, ...hostileMember(n) } }
      const asked = n % 50 === 49 ? request() : hostile
      expect(engine.authorize(asked).decision).toBe(asked === hostile ? 'deny' : 'allow')
    }
    expect(replaced()).toBeGreaterThan(10)
    expect(engine.healthy).toBe(true)
  }, 120_000)

  test('keeps slices apart when there are more than it holds loaded', () => {
    const upstreams = Array.from({ length: 70 }, (_, n) => `u${n}`)
    const text = upstreams
      .map(
        (id) =>
          `@id("${id}") permit (principal, action, resource == Chaperone::Upstream::"${id}");`,
      )
      .join('\n')
    using engine = compiled([{ file: 'a.cedar', text }])
    for (const id of [...upstreams, ...upstreams.toReversed()]) {
      const asked = { ...request(), resource: { type: 'Chaperone::Upstream', id } }
      expect(engine.authorizeSlice(engine.sliceOf(asked), asked).policyIds).toEqual([id])
    }
  })

  test('asks a slice again once another instance has taken the place of a spent one', () => {
    const text = `${permitAll} @id("f") forbid (principal, action == Chaperone::Action::"http.write", resource);`
    const { engine, replaced } = watched(text)
    const slice = engine.sliceOf(request())
    expect(slice.policies.map(({ id }) => id)).toEqual(['p'])
    expect(engine.authorizeSlice(slice, request()).decision).toBe('allow')
    const { context, ...rest } = request()
    const hostile = { ...rest, context: { ...context, path: '/\ud800' } }
    while (replaced() === 0) engine.authorize(hostile)
    expect(engine.authorizeSlice(slice, request()).decision).toBe('allow')
  })
})

/** What makes the engine throw, or fail, or must be taken as text: were it let in as structure. */
function hostileMember(n: number): CedarRequest['context'] {
  const deep = (levels: number): CedarRequest['context'][string] =>
    levels === 0 ? 'x' : { a: deep(levels - 1) }
  const members: readonly CedarRequest['context'][] = [
    { path: `/\ud800${n}` },
    { '\udfff': 'x' },
    { path: deep(130 + (n % 50)) },
    { path: { __extn: { fn: 'unknown', arg: 'x' } } },
    { path: { __entity: { type: 'Chaperone::Agent', id: `${n}` } } },
    { path: { __expr: 'principal' } },
    { path: 'x'.repeat(n), has_query: 'x'.repeat(n) },
    { path: n / 7 },
    { path: null },
  ]
  return members[n % members.length] ?? {}
}

function watched(text: string): { engine: PolicyEngine; replaced: () => number } {
  let count = 0
  const built = buildPolicySet([{ file: 'a.cedar', text }], { schema })
  if (!built.ok) throw new Error(JSON.stringify(built.problems))
  const observer = { answered() {}, selfChecked() {}, replaced: () => void (count += 1) }
  return { engine: createEngine(built.set, { observer }), replaced: () => count }
}

function compiled(sources: Parameters<typeof compilePolicies>[0]): PolicyEngine {
  const result = compilePolicies(sources, { schema })
  if (!result.ok) throw new Error(JSON.stringify(result.problems))
  return result.engine
}

function problemsOf(sources: Parameters<typeof compilePolicies>[0]): readonly PolicyProblem[] {
  const result = compilePolicies(sources, { schema })
  return result.ok ? [] : result.problems
}

function when(condition: string): string {
  return `@id("a") permit (principal, action, resource) when { ${condition} };`
}

function request(): CedarRequest {
  const principal = { type: 'Chaperone::Agent', id: 'spiffe://example.org/a' }
  const action = { type: 'Chaperone::Action', id: 'http.read' }
  const resource = { type: 'Chaperone::Upstream', id: 'api' }
  const task = { type: 'Chaperone::Task', id: 't' }
  return {
    principal,
    action,
    resource,
    context: {
      task: { __entity: task },
      purpose: 'check',
      sensitivity: 1,
      identity_kind: 'jwt-svid',
      method: 'GET',
      path: '/',
      has_query: false,
      now: { __extn: { fn: 'datetime', arg: '2026-01-01T00:00:00.000Z' } },
    },
    entities: [],
  }
}
