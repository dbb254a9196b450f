import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { GrantClaims } from '../../policy/grant.ts'
import { startWorld, type World } from '../kit/world.ts'

describe.each([
  { answers: 'SSE', upstreamArgs: [], how: 'final-message' },
  { answers: 'JSON', upstreamArgs: ['--mcp-json'], how: 'denied' },
])('an MCP client works through the proxy, with $answers answers', ({ upstreamArgs, how }) => {
  let world: World
  beforeAll(async () => {
    world = await startWorld({ upstreamArgs })
    await world.approve('T-mcp')
  })
  afterAll(() => world[Symbol.asyncDispose]())

  test('it initializes and lists only the tools of its task', async () => {
    await using session = await connect(world, 'T-mcp')
    expect(session.client.getServerVersion()).toMatchObject({ name: 'orders' })
    const { tools } = await session.client.listTools()
    expect(tools.map(({ name }) => name).toSorted()).toEqual(['lookup', 'wait'])
  })

  test('an approved tool answers', async () => {
    await using session = await connect(world, 'T-mcp')
    const result = await session.client.callTool({ name: 'lookup', arguments: { order: 'A-17' } })
    expect(result.isError ?? false).toBe(false)
    expect(result.content).toEqual([{ type: 'text', text: 'order A-17: shipped' }])
  })

  test('a tool outside the task is a result that says why, and never runs', async () => {
    await using session = await connect(world, 'T-mcp')
    await lookup(session, 'A-before')
    world.upstream.forget()
    const result = await session.client.callTool({
      name: 'refund',
      arguments: { order: 'A-17', amount: 10 },
    })
    expect(result).toMatchObject({
      isError: true,
      content: [{ type: 'text', text: expect.stringContaining('outside what was approved') }],
      _meta: { 'chaperone/denial': { code: 'policy-denied', retryable: false, txn: 'T-mcp' } },
    })
    await lookup(session, 'A-after')
    expect(posts(world)).toHaveLength(1)
    expect(world.upstream.events.filter(({ type }) => type === 'refund')).toEqual([])
  })

  test.each([
    { by: 'enum', args: { order: { enum: ['A-17'] } } },
    { by: 'prefix', args: { order: { prefix: 'A-' } } },
  ])('a constraint by $by on an argument refuses another order', async ({ by, args }) => {
    const txn = `T-${by}`
    await world.approve(txn, { authorization_details: lookupOnly(world, args) })
    await using session = await connect(world, txn)
    await lookup(session, 'A-17')
    world.upstream.forget()
    for (const order of ['B-17', 'a-17', ' A-17', '']) {
      const result = await session.client.callTool({ name: 'lookup', arguments: { order } })
      expect(result).toMatchObject({
        isError: true,
        _meta: { 'chaperone/denial': { code: 'policy-denied' } },
      })
    }
    const missing = await session.client.callTool({ name: 'lookup', arguments: {} })
    expect(missing).toMatchObject({ _meta: { 'chaperone/denial': { code: 'policy-denied' } } })
    await lookup(session, 'A-17')
    expect(posts(world)).toHaveLength(1)
  })

  test('a call in flight returns at once when its task is revoked, and the upstream sees the abort', async () => {
    await world.approve('T-cut')
    await using session = await connect(world, 'T-cut')
    world.upstream.forget()
    const call = session.client.callTool({ name: 'wait', arguments: {} })
    await world.upstream.seen(({ type }) => type === 'waiting')
    const startedMs = performance.now()
    const revoked = await world.cli('revoke', 'task:T-cut', '-r', 'wrong customer')
    expect(revoked).toMatchObject({ code: 0 })
    const result = await call
    // The tool itself takes 60 s.
    expect(performance.now() - startedMs).toBeLessThan(20_000)
    expect(result).toMatchObject({
      isError: true,
      content: [{ type: 'text', text: expect.stringContaining('revoked by an operator') }],
      _meta: { 'chaperone/denial': { code: 'task-terminated', retryable: false, txn: 'T-cut' } },
    })
    await world.upstream.seen(
      ({ type, method, complete }) => type === 'closed' && method === 'POST' && complete === false,
      15_000,
    )
    // The record comes after the answer. The client's own GET stream is cut too, by a reset.
    await expect
      .poll(() => cutsOf(world, 'T-cut'))
      .toContainEqual(expect.objectContaining({ code: 'task-terminated', how }))
  })

  test('the audit names the tool and no argument', async () => {
    await using session = await connect(world, 'T-mcp')
    const order = 'SECRET-ORDER-4711'
    await session.client.callTool({ name: 'lookup', arguments: { order } })
    // So long that no hash or time on record has these digits by chance.
    const amount = 987_654_321_234_567
    await session.client.callTool({ name: 'refund', arguments: { order, amount } })
    const records = await world.sidecar.audit()
    const decisions = records.filter(({ type }) => type === 'decision')
    expect(decisions.slice(-2)).toMatchObject([
      {
        request: { kind: 'mcp', mcp: { method: 'tools/call', tool: 'lookup' } },
        decision: { effect: 'allow' },
      },
      {
        request: { kind: 'mcp', mcp: { method: 'tools/call', tool: 'refund' } },
        decision: { effect: 'deny', code: 'policy-denied' },
      },
    ])
    const written = JSON.stringify(records) + world.sidecar.output()
    expect(written).not.toContain(order)
    expect(written).not.toContain(String(amount))
  })
})

interface Session extends AsyncDisposable {
  readonly client: Client
  readonly upstream: World['upstream']
}

async function connect(world: World, txn: string): Promise<Session> {
  const client = new Client({ name: 'test', version: '1.0.0' })
  const url = new URL(`${world.sidecar.agentUrl}/mcp`)
  const transport: Omit<StreamableHTTPClientTransport, 'sessionId'> =
    new StreamableHTTPClientTransport(url, { requestInit: { headers: world.headers(txn) } })
  await client.connect(transport satisfies Transport)
  return { client, upstream: world.upstream, [Symbol.asyncDispose]: () => client.close() }
}

/** Succeeds, and lets the upstream report: it does so in order, so what came before is known too. */
async function lookup({ client, upstream }: Session, order: string): Promise<void> {
  const result = await client.callTool({ name: 'lookup', arguments: { order } })
  expect(result.content).toEqual([{ type: 'text', text: `order ${order}: shipped` }])
  await upstream.seen((event) => event.type === 'lookup' && event.order === order)
}

type Entry = Extract<GrantClaims['authorization_details'][number], { readonly type: 'mcp_server' }>

function lookupOnly(
  { upstream }: World,
  args: NonNullable<Entry['args']>,
): GrantClaims['authorization_details'] {
  return [{ type: 'mcp_server', locations: [`${upstream.url}/mcp`], tools: ['lookup'], args }]
}

function posts({ upstream }: World): readonly unknown[] {
  return upstream.events.filter(({ type, method }) => type === 'request' && method === 'POST')
}

async function cutsOf({ sidecar }: World, task: string): Promise<readonly unknown[]> {
  return (await sidecar.audit())
    .filter(({ type, txn, end }) => type === 'outcome' && txn === task && end === 'cut')
    .map(({ cut }) => cut)
}
