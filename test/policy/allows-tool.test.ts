import { describe, expect, test } from 'vitest'
import { allowsTool, decide, type DecideInput } from '../../policy/decide.ts'
import type { Destination } from '../../policy/types.ts'
import {
  call,
  chainOf,
  engineOf,
  grant,
  input,
  list,
  mcp,
  nowMs,
  record,
  viewOf,
} from '../kit/decide-input.ts'
import { names } from '../kit/tokens.ts'

describe('allowsTool()', () => {
  test('shows what every link grants with some arguments', () => {
    const entry: Destination = {
      type: 'mcp_server',
      locations: [`${names.upstream}/mcp`],
      tools: ['read_*'],
      args: { path: { prefix: '/data/' } },
    }
    const chain = chainOf([grant(), grant({ jti: 'child', txn: 'child', destinations: [entry] })])
    expect(ask('read_file', { chain })).toBe(true)
    expect(ask('write_file', { chain })).toBe(false)
  })

  test.each(['tool:files/read_file', 'upstream:files', 'task:task-1'])(
    'hides it when %s is revoked',
    (subject) => {
      expect(ask('read_file')).toBe(true)
      expect(ask('read_file', { view: viewOf([record({ subject })]) })).toBe(false)
    },
  )

  test('hides it once the task has expired or the upstream holds too much', () => {
    expect(ask('read_file', { nowMs: nowMs + 600_000 })).toBe(false)
    expect(ask('read_file', { upstream: { ...mcp, sensitivity: 'restricted' } })).toBe(false)
  })

  test('hides what a policy forbids, or permits only with an argument', () => {
    using engine = engineOf(
      `@id("a") permit (principal, action == Chaperone::Action::"tools/call", resource)
      when { context.tool == "read_file" && (context.listing || context.args.hasTag("path") && context.args.getTag("path") like "/data/*") };
      @id("b") permit (principal, action == Chaperone::Action::"tools/call", resource)
      when { context.tool == "write_file" && context.args.hasTag("path") };`,
    )
    expect(ask('read_file', { engine })).toBe(true)
    expect(ask('write_file', { engine })).toBe(false)
    const operation = call('read_file', [['path', '/etc']])
    expect(decide(input({ engine, upstream: mcp, operation })).outcome).toBe('deny')
  })

  test('hides a tool of a hostile name without throwing', () => {
    expect(ask('\udfff')).toBe(false)
    expect(ask('x'.repeat(5000))).toBe(false)
  })
})

function ask(tool: string, more: Partial<DecideInput> = {}): boolean {
  return allowsTool({ ...input({ operation: list(), upstream: mcp, ...more }), tool })
}
