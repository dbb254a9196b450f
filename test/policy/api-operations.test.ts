import { describe, expect, test } from 'vitest'
import { withApiOperations } from '../../policy/api-operations.ts'
import { compilePolicies, type PolicyEngine } from '../../policy/cedar.ts'
import { decide } from '../../policy/decide.ts'
import { readOpenApi } from '../../policy/openapi.ts'
import type { Operation, Upstream } from '../../policy/types.ts'
import { answer, http, input, mcp, readText, rest, websocket } from '../kit/decide-input.ts'

const document = {
  openapi: '3.0.3',
  paths: {
    '/refunds/{id}': {
      parameters: [{ name: 'id', in: 'path', schema: { type: 'integer' } }],
      get: { operationId: 'refund"s/get' },
      post: {},
    },
  },
}
const read = readOpenApi(document, { basePath: '/v1' })
if (!read.ok) throw new Error(JSON.stringify(read.findings))
const api: Upstream = { ...rest, operations: read.operations }
const other: Upstream = { ...mcp, operations: new Map() }

function engineOf(condition: string): PolicyEngine {
  const schema = withApiOperations(readText('chaperone.cedarschema'), [api, other])
  const text = `@id("all") permit (principal, action, resource);
    @id("f") forbid (principal, action in [Chaperone::Action::"http.read", Chaperone::Action::"http.write"], resource)
    when { ${condition} };`
  const compiled = compilePolicies([{ file: 'a.cedar', text }], { schema })
  if (!compiled.ok) throw new Error(compiled.problems.map(({ message }) => message).join())
  return compiled.engine
}

/** Always the same task, so that what it was answered before counts. */
const asked = input()
const ask = (engine: PolicyEngine, operation: Operation, upstream: Upstream = api): unknown =>
  decide({ ...asked, engine, upstream, operation }).policyIds

const get = 'Chaperone::Operation::"api/refund\\"s/get"'
const large =
  'context.typed has "api/POST /refunds/{id}" && context.typed["api/POST /refunds/{id}"].id > 500'

describe('context.operation', () => {
  test.each([true, false])('names what is asked, with the short cuts %s', (isShort) => {
    using engine = engineOf(`context.operation == ${get}`)
    if (!isShort) engine.memo.turnOff()
    expect(ask(engine, http('GET', '/v1/refunds/5'))).toEqual(['f'])
    expect(ask(engine, http('GET', '/v1/refunds/five'))).toEqual(['all'])
    expect(ask(engine, http('POST', '/v1/refunds/5'))).toEqual(['all'])
    expect(ask(engine, http('GET', '/v1/refunds/6'))).toEqual(['f'])
  })

  test.each([true, false])('is "undescribed" of all else, with the short cuts %s', (isShort) => {
    using engine = engineOf('context.operation == Chaperone::Operation::"undescribed"')
    if (!isShort) engine.memo.turnOff()
    expect(ask(engine, http('GET', '/v1/else'))).toEqual(['f'])
    expect(ask(engine, http('GET', '/v1/refunds/5'))).toEqual(['all'])
    // The event stream of an MCP server; what is no plain HTTP has no operation at all.
    const hidden = { ...other, origin: rest.origin }
    expect(ask(engine, http('GET', '/v1/a'), hidden)).toEqual(['f'])
    expect(ask(engine, answer(), other)).toEqual(['all'])
    expect(ask(engine, websocket())).toEqual(['all'])
  })
})

describe('context.typed of plain HTTP', () => {
  test('has the path parameters with their types, and is part of what is remembered', () => {
    using engine = engineOf(large)
    const paths = ['40', '501', '40', '501', '0501'].map((id) => `/v1/refunds/${id}`)
    expect(paths.map((path) => ask(engine, http('POST', path)))).toEqual([
      ['all'],
      ['f'],
      ['all'],
      ['f'],
      ['all'],
    ])
  })

  test.each([
    ['context.operation == Chaperone::Operation::"api/typo"', /typo/],
    [large.replaceAll('.id', '.ident'), /not found/],
    [large.replaceAll('500', '"5"'), /expected .*Long/i],
    ['context.typed["api/POST /refunds/{id}"].id > 5', /unable to guarantee safety/],
    ['context.typed has "api/typo" && context.method == "GET"', /impossible|never/i],
  ])('is checked strictly: %s', (condition, message) => {
    expect(() => engineOf(condition)).toThrow(message)
  })
})
