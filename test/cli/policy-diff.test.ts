import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { DecisionEvent } from '../../audit/record.ts'
import { decisionEvent, openTestLog } from '../kit/audit-records.ts'
import { runPolicy } from '../kit/run-policy.ts'

let root = ''
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'chaperone-diff-'))
  for (const name of ['old', 'new']) await mkdir(join(root, name))
  await put('old/a.cedar', all)
  await put('new/a.cedar', all)
  const example = await readFile(new URL('../../examples/chaperone.yaml', import.meta.url), 'utf8')
  await put('chaperone.yaml', example)
})
afterEach(() => rm(root, { recursive: true }))

const all = '@id("all") permit (principal, action, resource);\n'
const put = (name: string, text: string): Promise<void> => writeFile(join(root, name), text)

function recorded(id: string, request: Partial<DecisionEvent['request']> = {}): DecisionEvent {
  const event = decisionEvent({ id })
  const upstream = request.kind === 'mcp' ? 'tickets' : 'github'
  const task = event.task && { ...event.task, sensitivity: 'confidential' as const }
  return { ...event, upstream, task, request: { ...event.request, ...request } }
}

const toolCall = (id: string, tool: string): DecisionEvent =>
  recorded(id, { kind: 'mcp', method: 'POST', path: '/mcp', mcp: { method: 'tools/call', tool } })

async function diff(...events: readonly DecisionEvent[]): ReturnType<typeof runPolicy> {
  const path = join(root, 'audit.ndjson')
  {
    await using log = await openTestLog(path)
    for (const event of events) await log.log.append(event)
  }
  const sets = [join(root, 'old'), join(root, 'new')]
  return runPolicy('diff', ...sets, '--against', path, '-c', join(root, 'chaperone.yaml'))
}

const onCalls = (id: string, condition: string): string =>
  `@id("${id}") forbid (principal, action == Chaperone::Action::"tools/call", resource)
   when { ${condition} };`

/** Delegated from T-0 over T-mid, each grant signed by an authority of its own. */
function delegated(id: string, more: Partial<DecisionEvent['task']> = {}): DecisionEvent {
  const event = recorded(id)
  const above = { spiffe_id: 'spiffe://example.org/agent/planner' }
  const facts = {
    txn: 'T-2',
    chain: ['g-0', 'g-1', 'g-2'],
    ancestors: ['T-0', 'T-mid'].map((txn) => ({ txn, ...above })),
    approvers: ['https://root.test', 'https://middle.test', 'https://leaf.test'],
  }
  return { ...event, task: event.task && { ...event.task, ...facts, ...more } }
}

describe('chaperone policy diff', () => {
  test('lists what would change, by policy, with examples', async () => {
    await put(
      'new/b.cedar',
      '@id("no-deletes") forbid (principal, action, resource) when { context.method == "DELETE" };',
    )
    const deletes = ['d-1', 'd-2'].map((id) => recorded(id, { method: 'DELETE', path: `/x/${id}` }))
    const { code, out } = await diff(recorded('d-0'), ...deletes)
    expect(out).toMatch(
      /^2 of 3 decisions would change\n {6}2 {2}allow -> deny {2}by no-deletes, was by all\n {9}d-1 {2}DELETE \/x\/d-1 of github by spiffe:/,
    )
    expect(code).toBe(1)
  })

  test('ends with 0 when nothing changes', async () => {
    expect(await diff(recorded('d-0'))).toMatchObject({
      code: 0,
      out: '0 of 1 decisions would change\n',
    })
  })

  test('tells of a tool call only what is so whatever its arguments were', async () => {
    await put(
      'new/b.cedar',
      `@id("large") forbid (principal, action == Chaperone::Action::"tools/call", resource)
       when { context.tool == "refund" && !(context.integers.hasTag("amount") && context.integers.getTag("amount") <= 5) };
       @id("drops") forbid (principal, action == Chaperone::Action::"tools/call", resource)
       when { context.tool == "drop" };`,
    )
    const { code, out } = await diff(
      toolCall('c-1', 'refund'),
      toolCall('c-2', 'lookup'),
      toolCall('c-3', 'drop'),
    )
    expect(out.split('\n')).toEqual([
      '1 of 2 decisions would change',
      '      1  allow -> deny  by drops, was by all',
      expect.stringContaining('c-3  call drop of tickets by '),
      '1 cannot be told: it depends on arguments, which are not recorded',
      '',
    ])
    expect(code).toBe(1)
  })

  test('does not take a permit that reads arguments for granted', async () => {
    await put(
      'new/a.cedar',
      `@id("small") permit (principal, action == Chaperone::Action::"tools/call", resource)
       when { context.tool == "refund" && context.args.hasTag("order") };`,
    )
    const { out } = await diff(toolCall('c-1', 'refund'), toolCall('c-2', 'lookup'))
    expect(out).toContain('1 of 1 decisions would change')
    expect(out).toContain('c-2  call lookup')
    expect(out).toContain('1 cannot be told: it depends on arguments')
  })

  test('counts what was no decision of policies, and says why', async () => {
    const event = recorded('d-0')
    const revoked = { ...event.decision, effect: 'deny', code: 'task-terminated' } as const
    const { out, code } = await diff(
      { ...event, decision: revoked },
      { ...event, upstream: 'gone' },
      { ...event, task: null },
    )
    expect(out.split('\n')).toEqual([
      '0 of 0 decisions would change',
      '1 cannot be told: it was refused by task-terminated, which is no policy',
      '1 cannot be told: the upstream "gone" is not in the configuration',
      '1 cannot be told: it was refused before policies were asked',
      '',
    ])
    expect(code).toBe(0)
  })

  test.each([
    'context.tool == "args"',
    'context.tool like "*.args.*" || context.tool == "args"',
    'context.tool == "args" && context.purpose != "context"',
    String.raw`context.tool != "\" integers" && context.path != "context[\\"`,
    'context.tool != "Arguments" && context.task != Chaperone::Task::"typed"',
    'context.tool == "args" // not of its integers, "args\n',
    'context.tool == "args" && !context.listing',
  ])('takes text that looks like arguments for what it is: %s', async (condition) => {
    await put('new/b.cedar', onCalls('b', condition))
    expect((await diff(toolCall('c-1', 'args'))).out).toContain('1 of 1 decisions would change\n')
  })

  test.each([
    'context.args.hasTag("tool")',
    'context["args"].hasTag("a")',
    'context . integers . hasTag("a")',
    'context // of "a call"\n.args.hasTag("a")',
    String.raw`context.tool != "\"" && context.args.hasTag("\"")`,
    '(if context.listing then context else context).args.hasTag("a")',
    'Chaperone::Arguments::"args".hasTag("a")',
    'Chaperone :: Integers :: "integers".hasTag("a")',
    '{ all: context.args }.all.hasTag("a")',
    '[context].contains(context)',
  ])('does not tell of what reads arguments, however it is written: %s', async (condition) => {
    await put('new/b.cedar', onCalls('b', condition))
    expect((await diff(toolCall('c-1', 'args'))).out).toContain(
      '0 of 0 decisions would change\n1 cannot be told: it depends on arguments',
    )
  })

  test('tells apart the clauses of one policy by what they read', async () => {
    await put(
      'new/b.cedar',
      onCalls('b', 'context.tool == "argsless" && context.args.hasTag("argsless")'),
    )
    const { out } = await diff(toolCall('c-1', 'argsless'), toolCall('c-2', 'args'))
    expect(out).toContain('0 of 1 decisions would change\n1 cannot be told')
  })

  test.each([
    ['the tasks above it', 'context.task in Chaperone::Task::"T-0"'],
    ['the task right above it', 'context.task in Chaperone::Task::"T-mid"'],
    ['itself', 'context.task == Chaperone::Task::"T-2"'],
    ['its depth', 'context.task.depth == 2'],
    [
      'its approvers',
      'context.task.approvers == ["https://leaf.test", "https://middle.test", "https://root.test"]',
    ],
  ])('asks again what was delegated, with %s', async (_what, condition) => {
    await put('new/b.cedar', `@id("b") forbid (principal, action, resource) when { ${condition} };`)
    const { out } = await diff(delegated('d-1'), recorded('d-0'))
    expect(out).toContain('1 of 2 decisions would change\n')
    expect(out).toContain('         d-1  ')
  })

  test.each([
    ['ancestors', { ancestors: [] }],
    ['approvers', { approvers: ['https://leaf.test'] }],
  ])('names what was delegated and is recorded without all its %s', async (_what, more) => {
    expect((await diff(delegated('d-1', more))).out.split('\n')).toEqual([
      '0 of 0 decisions would change',
      '1 cannot be told: it was made under a delegated grant, and not all that stands above it is recorded',
      '',
    ])
  })

  test('says where the new set is wrong', async () => {
    await put('new/a.cedar', all.replace('principal', 'principle'))
    expect(await diff(recorded('d-0'))).toMatchObject({
      code: 1,
      err: expect.stringContaining('new/a.cedar:1:'),
    })
  })
})
