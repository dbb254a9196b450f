import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startWorld, type World } from '../kit/world.ts'

/** The official client, as an agent runtime would set it up. */
async function openClient(world: World, txn: string): Promise<Client> {
  const client = new Client({ name: 'agent', version: '1.0.0' })
  const url = new URL(`${world.sidecar.agentUrl}/mcp`)
  const transport = new StreamableHTTPClientTransport(url, {
    requestInit: { headers: world.headers(txn) },
  })
  await client.connect(transport)
  return client
}

function textOf(result: Awaited<ReturnType<Client['callTool']>>): string {
  const [first]: unknown[] = Array.isArray(result.content) ? result.content : []
  return typeof first === 'object' && first !== null && 'text' in first ? String(first.text) : ''
}

function isDenied(decision: unknown): boolean {
  return (
    typeof decision === 'object' &&
    decision !== null &&
    'effect' in decision &&
    decision.effect === 'deny'
  )
}

describe.each([
  ['server-sent events', []],
  ['JSON', ['--mcp-json']],
])('an MCP server that answers with %s', (_, upstreamArgs) => {
  let world: World
  beforeAll(async () => {
    world = await startWorld({ upstreamArgs })
    await world.approve('T-mcp')
  })
  afterAll(() => world[Symbol.asyncDispose]())

  test('tools/list shows only what this task may call', async () => {
    const client = await openClient(world, 'T-mcp')
    const { tools } = await client.listTools()
    expect(tools.map(({ name }) => name).toSorted()).toEqual(['lookup', 'wait'])
    await client.close()
  })

  test('an allowed call reaches the server', async () => {
    const client = await openClient(world, 'T-mcp')
    const result = await client.callTool({ name: 'lookup', arguments: { order: 'A-1' } })
    expect(textOf(result)).toBe('order A-1: shipped')
    await client.close()
  })

  test('a denied call is an answer that the model can read, and never reaches the server', async () => {
    const client = await openClient(world, 'T-mcp')
    world.upstream.forget()
    const result = await client.callTool({
      name: 'refund',
      arguments: { order: 'A-1', amount: 900 },
    })
    expect(result.isError).toBe(true)
    expect(textOf(result)).toContain('outside what was approved')
    expect(result._meta).toMatchObject({
      'chaperone/denial': { code: 'policy-denied', txn: 'T-mcp', retryable: false },
    })
    expect(world.upstream.events.filter(({ type }) => type === 'refund')).toEqual([])
    const denied = await world.sidecar.recorded(({ decision }) => isDenied(decision))
    expect(denied).toMatchObject({
      request: { kind: 'mcp', mcp: { method: 'tools/call', tool: 'refund' } },
      decision: { effect: 'deny', code: 'policy-denied' },
    })
    expect(JSON.stringify(denied)).not.toContain('A-1')
    await client.close()
  })

  test('an argument outside the grant is denied', async () => {
    await world.approve('T-args', {
      authorization_details: [
        {
          type: 'mcp_server',
          locations: [`${world.upstream.url}/mcp`],
          tools: ['lookup'],
          args: { order: { prefix: 'EU-' } },
        },
      ],
    })
    const client = await openClient(world, 'T-args')
    const allowed = await client.callTool({ name: 'lookup', arguments: { order: 'EU-7' } })
    expect(textOf(allowed)).toBe('order EU-7: shipped')
    const denied = await client.callTool({ name: 'lookup', arguments: { order: 'US-7' } })
    expect(denied.isError).toBe(true)
    await client.close()
  })
})

describe('a call in flight', () => {
  let world: World
  beforeAll(async () => {
    world = await startWorld()
  })
  afterAll(() => world[Symbol.asyncDispose]())

  test('returns at once with the reason when its task is revoked, and the server sees the abort', async () => {
    await world.approve('T-wait')
    const client = await openClient(world, 'T-wait')
    world.upstream.forget()
    const pending = client.callTool({ name: 'wait', arguments: {} })
    await world.upstream.seen(({ type }) => type === 'waiting')
    const { code } = await world.cli('revoke', 'task:T-wait', '-r', 'wrong customer')
    expect(code).toBe(0)
    const result = await pending
    expect(result.isError).toBe(true)
    expect(textOf(result)).toContain('revoked by an operator')
    expect(result._meta).toMatchObject({ 'chaperone/denial': { code: 'task-terminated' } })
    const closed = await world.upstream.seen(({ type, url }) => type === 'closed' && url === '/mcp')
    expect(closed.complete).toBe(false)
    // The client's idle event stream is cut too, by a reset: nothing was asked on it.
    const cut = await world.sidecar.recorded(({ cut: how }) =>
      JSON.stringify(how ?? '').includes('final-message'),
    )
    expect(cut).toMatchObject({
      type: 'outcome',
      end: 'cut',
      txn: 'T-wait',
      cut: { code: 'task-terminated' },
    })
    await client.close()
  })
})
