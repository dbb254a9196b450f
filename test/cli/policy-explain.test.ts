import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { DecisionEvent } from '../../audit/record.ts'
import { decisionEvent, openTestLog } from '../kit/audit-records.ts'
import { runPolicy } from '../kit/run-policy.ts'

let directory = ''
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chaperone-explain-'))
})
afterEach(() => rm(directory, { recursive: true }))

const put = async (name: string, text: string): Promise<string> => {
  const path = join(directory, name)
  await writeFile(path, text)
  return path
}
const explain = (...args: readonly string[]) => runPolicy('explain', ...args, '-d', directory)

const recorded = (changes: Partial<DecisionEvent> = {}): DecisionEvent => {
  const event = decisionEvent({ id: 'd-1', effect: 'deny' })
  const decision = { ...event.decision, code: 'policy-denied', detail: 'no policy permits it' }
  return { ...event, upstream: 'github', decision, ...changes }
}
const explainRecord = async (
  event: DecisionEvent,
  policy: string = '@id("p") permit (principal, action in Chaperone::Action::"write", resource);',
): ReturnType<typeof runPolicy> => {
  const path = join(directory, 'audit.ndjson')
  {
    await using log = await openTestLog(path)
    await log.log.append(event)
  }
  await put('a.cedar', policy)
  const example = new URL('../../examples/chaperone.yaml', import.meta.url)
  const config = (await readFile(example, 'utf8')).replace('directory: policies', 'directory: .')
  return runPolicy('explain', 'd-1', '--audit', path, '-c', await put('chaperone.yaml', config))
}

function taskOf({ task }: DecisionEvent): NonNullable<DecisionEvent['task']> {
  if (!task) throw new Error('no task')
  return task
}

describe('chaperone policy explain', () => {
  test('names the clause that fails of the nearest permit, with its place', async () => {
    const file = await put(
      'a.cedar',
      `@id("far") permit (principal, action in Chaperone::Action::"write", resource);
@id("near") permit (principal, action, resource == Chaperone::Upstream::"crm")
when { context.purpose == "refund" && context.path like "/v1/*" && context.method == "GET" };`,
    )
    const cases = await put(
      'c.yaml',
      'cases:\n  - { name: outside, purpose: refund, upstream: { name: crm }, request: GET /v2/a, expect: deny }\n',
    )
    const { code, out } = await explain(cases)
    expect(out.split('\n')).toEqual([
      'outside: deny by no policy: no policy permits it',
      '  nearest: 2 of 4 clauses hold',
      `  permit near  ${file}:2:1`,
      `    holds  ${file}:2:40  resource == Chaperone::Upstream::"crm"`,
      `    holds  ${file}:3:8  when context.purpose == "refund"`,
      `    FAILS  ${file}:3:39  when context.path like "/v1/*"`,
      `    -      ${file}:3:68  when context.method == "GET"`,
      '  next: 0 of 1 clauses hold',
      `  permit far  ${file}:1:1`,
      `    FAILS  ${file}:1:31  action in Chaperone::Action::"write"`,
      '',
    ])
    expect(code).toBe(0)
  })

  test('names the forbid that decides with its reason, and the one that errs', async () => {
    await put(
      'a.cedar',
      `@id("p") permit (principal, action, resource);
@id("f") @reason("Ask first.") @severity("high") forbid (principal, action, resource) unless { context.has_query };
@id("e") forbid (principal, action, resource) when { context.has_query && context.sensitivity + 9223372036854775807 > 0 };`,
    )
    const cases = await put(
      'c.yaml',
      'cases:\n  - { name: one, request: GET /a, expect: deny }\n  - { name: two, request: GET /a?b, expect: deny }\n',
    )
    const one = await explain(cases, '--case', 'one')
    expect(one.out).toContain('one: deny by f: a policy forbids it\n  forbid f high  ')
    expect(one.out).toContain('    reason: Ask first.\n    holds  ')
    expect(one.out).not.toContain('two')
    const two = await explain(cases, '--case', 'two')
    expect(two.out).toContain('two: deny by p: policy evaluation error: e')
    expect(two.out).toMatch(
      /ERRS {3}.*a\.cedar:3:75 {2}when context\.sensitivity .*integer overflow/,
    )
  })

  test('says when there is no such case, and where a case file is wrong', async () => {
    await put('a.cedar', '@id("p") permit (principal, action, resource);')
    const cases = await put('c.yaml', 'cases:\n  - { name: one, request: GET /a, expct: deny }\n')
    expect(await explain(cases)).toMatchObject({
      code: 3,
      err: expect.stringContaining(
        'c.yaml:2:35 cases[0].expct: Unknown setting; did you mean "expect"?',
      ),
    })
    await put('c.yaml', 'cases:\n  - { name: one, request: GET /a, expect: deny }\n')
    expect(await explain(cases, '--case', 'three')).toMatchObject({
      code: 1,
      err: expect.stringContaining('Expected a case of the name "three"'),
    })
  })
})

describe('chaperone policy explain --audit', () => {
  test('asks again what the record holds', async () => {
    const { code, out } = await explainRecord(recorded())
    expect(out).toContain('recorded deny policy-denied  no policy permits it\n')
    expect(out).toContain('d-1: deny by no policy: no policy permits it\n  nearest: 0 of 1')
    expect(code).toBe(0)
  })

  test('says that arguments of a tool call are not on record', async () => {
    const request = {
      ...decisionEvent({ id: '' }).request,
      kind: 'mcp',
      mcp: { method: 'tools/call', tool: 'refund' },
    } as const
    const { out } = await explainRecord(recorded({ request, upstream: 'tickets' }))
    expect(out).toContain('The arguments of a tool call are not recorded')
  })

  test.each([
    [{ task: null }, 'it was refused before policies were asked'],
    [{ upstream: 'gone' }, 'the upstream "gone" is not in the configuration'],
    [
      {
        decision: {
          ...decisionEvent({ id: '' }).decision,
          effect: 'deny',
          code: 'task-terminated',
        },
      },
      'it was refused by task-terminated, which is no policy',
    ],
    [
      { task: { ...taskOf(recorded()), chain: ['g-0', 'g-1'], ancestors: [] } },
      'it was made under a delegated grant, and not all that stands above it is recorded',
    ],
  ] as const)('says what cannot be asked again: %j', async (changes, reason) => {
    const { code, err } = await explainRecord(recorded(changes))
    expect(err).toContain(`the decision cannot be asked again: ${reason}`)
    expect(code).toBe(1)
  })

  test('asks a decision under a delegated grant again', async () => {
    const event = recorded()
    const task = {
      ...taskOf(event),
      chain: ['g-0', 'g-1'],
      ancestors: [{ txn: 'T-0', spiffe_id: 'spiffe://example.org/agent/planner' }],
      approvers: ['https://root.test', 'https://leaf.test'],
    }
    const condition = 'context.task in Chaperone::Task::"T-0" && context.task.depth == 2'
    const { out } = await explainRecord(
      { ...event, task },
      `@id("p") permit (principal, action, resource) when { ${condition} };`,
    )
    expect(out).toMatch(/holds .* when context\.task in Chaperone::Task::/)
    expect(out).toMatch(/FAILS .* when context\.task\.depth == 2/)
  })
})
