import { describe, expect, test } from 'vitest'
import { compilePolicies, type PolicyEngine } from '../../policy/cedar.ts'
import { allowsTool, decide } from '../../policy/decide.ts'
import { readToolTypes, withToolTypes, type ToolTypes } from '../../policy/tool-types.ts'
import type { ArgumentValue, Upstream } from '../../policy/types.ts'
import { call, input, list, mcp, readText } from '../kit/decide-input.ts'

const inputSchema = {
  type: 'object',
  properties: {
    amount: { type: 'integer' },
    note: { type: ['string', 'null'] },
    urgent: { type: 'boolean' },
    currency: { enum: ['EUR', 'USD'] },
    rate: { type: 'number' },
    either: { type: ['string', 'integer'] },
    tags: { type: 'array', items: { type: 'string' } },
    order: { type: 'object', properties: { 'a/b~c': { type: 'string' } }, required: ['a/b~c'] },
    'no" }': { type: 'string' },
  },
  required: ['amount', 'note', 'order'],
}

function typesOf(value: unknown): ToolTypes {
  const read = readToolTypes(value)
  if (!read.ok) throw new Error(read.reason)
  return read.tools
}

const tools = typesOf({ tools: [{ name: 'refund', inputSchema }, { name: 'plain' }] })
const files: Upstream = { ...mcp, tools }

function engineOf(condition: string, upstream: Upstream = files): PolicyEngine {
  const schema = withToolTypes(readText('chaperone.cedarschema'), [upstream])
  const text = `@id("all") permit (principal, action, resource);
    @id("f") forbid (principal, action == Chaperone::Action::"tools/call", resource) when { ${condition} };`
  const compiled = compilePolicies([{ file: 'a.cedar', text }], { schema })
  if (!compiled.ok) throw new Error(compiled.problems.map(({ message }) => message).join())
  return compiled.engine
}

describe('readToolTypes()', () => {
  test('takes what Cedar has a type for, by pointer, and leaves out the rest', () => {
    expect(Object.fromEntries(tools.get('refund') ?? [])).toEqual({
      amount: { type: 'Long', isRequired: true },
      note: { type: 'String', isRequired: false },
      urgent: { type: 'Bool', isRequired: false },
      currency: { type: 'String', isRequired: false },
      'order/a~1b~0c': { type: 'String', isRequired: true },
      'no" }': { type: 'String', isRequired: false },
    })
    expect(tools.get('plain')?.size).toBe(0)
  })

  test('reads a whole JSON-RPC answer too', () => {
    const answer = { jsonrpc: '2.0', id: 1, result: { tools: [{ name: 'a', inputSchema }] } }
    expect(typesOf(answer).has('a')).toBe(true)
  })

  test.each([
    [[], 'Expected the result of tools/list: { tools: [...] }'],
    [{ tools: [{ title: 'x' }] }, 'Expected the result of tools/list: { tools: [...] }'],
    [{ tools: [{ name: 'a' }, { name: 'a' }] }, 'The tool "a" stands twice'],
    [{ tools: [{ name: 'e\u0301' }] }, 'Expected names of tools in plain Unicode text'],
  ])('refuses %j', (value, reason) => {
    expect(readToolTypes(value)).toEqual({ ok: false, reason })
  })
})

const ask = (
  engine: PolicyEngine,
  args: Readonly<Record<string, ArgumentValue>>,
  tool: string = 'refund',
) => decide(input({ engine, upstream: files, operation: call(tool, Object.entries(args)) }))

describe('context.typed', () => {
  const amount = 'context.typed has "files/refund" && context.typed["files/refund"].amount > 500'
  const good = { amount: 40, 'order/a~1b~0c': 'A-1' }

  test('has the arguments of the tool, with their types', () => {
    using engine = engineOf(amount)
    expect(ask(engine, good).outcome).toBe('allow')
    expect(ask(engine, { ...good, note: null, extra: 1.5 }).outcome).toBe('allow')
    expect(ask(engine, { ...good, amount: 501 })).toMatchObject({ policyIds: ['f'] })
    expect(ask(engine, {}, 'plain').outcome).toBe('allow')
    expect(ask(engine, {}, 'unknown').outcome).toBe('allow')
  })

  test.each([
    [{ ...good, amount: '40' }, 'an argument has another type than the tool declares'],
    [{ ...good, amount: 4.5 }, 'an argument has another type than the tool declares'],
    [{ ...good, amount: null }, 'an argument has another type than the tool declares'],
    [{ amount: 40 }, 'a declared argument of the tool is missing'],
  ])('is never made of what is not as declared: %j', (args, reason) => {
    using engine = engineOf(amount)
    expect(ask(engine, args)).toMatchObject({
      outcome: 'deny',
      detail: `cannot be put to policy: ${reason}`,
    })
  })

  test('is part of what is remembered of a call', () => {
    using engine = engineOf(amount)
    const one = input({ engine, upstream: files })
    const outcomes = [40, 501, 40, 501].map((value) => {
      const args = Object.entries({ ...good, amount: value })
      return decide({ ...one, operation: call('refund', args) }).outcome
    })
    expect(outcomes).toEqual(['allow', 'deny', 'allow', 'deny'])
  })

  test('never spells an entity, whatever the tool calls its arguments', () => {
    const names = { type: 'object', properties: { __entity: { type: 'string' } } }
    const types = typesOf({ tools: [{ name: 'refund', inputSchema: names }] })
    expect(types.get('refund')?.size).toBe(0)
    const upstream = { ...mcp, tools: types }
    using engine = engineOf('context.path == "/elsewhere"', upstream)
    // The plain way shows Cedar the whole request.
    engine.memo.turnOff()
    const operation = call('refund', [['__entity', 'x']])
    expect(decide(input({ engine, upstream, operation })).outcome).toBe('allow')
  })

  test('is empty at every other upstream, and in a list', () => {
    using engine = engineOf(amount)
    const other = { ...mcp, tools: new Map() }
    const operation = call('refund', [['amount', 'text']])
    expect(decide(input({ engine, upstream: other, operation })).outcome).toBe('allow')
    const listing = { ...input({ engine, upstream: files, operation: list() }), tool: 'refund' }
    expect(allowsTool(listing)).toBe(true)
  })

  test.each([
    ['context.typed has "files/refund" && context.typed["files/refund"].amont > 5', 'not found'],
    [
      'context.typed has "files/refund" && context.typed["files/refund"].amount == "5"',
      'not compatible',
    ],
    ['context.typed["files/refund"].amount > 5', 'unable to guarantee safety'],
    [
      'context.typed has "files/refund" && context.typed["files/refund"].urgent',
      'unable to guarantee safety',
    ],
  ])('is checked strictly: %s', (condition, message) => {
    expect(() => engineOf(condition)).toThrow(message)
  })
})
