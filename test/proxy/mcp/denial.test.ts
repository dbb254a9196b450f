import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { describe, expect, test } from 'vitest'
import { deny } from '../../../policy/denial.ts'
import type { Denial, McpMessage, Revocation } from '../../../policy/types.ts'
import { denialText } from '../../../proxy/denial.ts'
import { mcpFinalMessage, refuseMcp } from '../../../proxy/mcp/denial.ts'

const call: McpMessage = { type: 'tools/call', id: 'c1', tool: 'search', args: new Map() }
const list: McpMessage = { type: 'request', id: 2, method: 'tools/list' }
const notification: McpMessage = { type: 'notification', method: 'notifications/initialized' }
const revocation: Revocation = {
  rid: 'r1',
  op: 'revoke',
  subject: 'task:T-42',
  reason: 'operator text',
  by: 'ops',
  atMs: Date.UTC(2026, 0, 2),
  expiresAtMs: 0,
}
const revoked = deny('task-terminated', 'audit only', { revocation })

interface Served extends AsyncDisposable {
  readonly url: URL
}

async function serve(listener: RequestListener): Promise<Served> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('Expected a port')
  return {
    url: new URL(`http://127.0.0.1:${address.port}/mcp`),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

async function refused(denial: Denial, message: McpMessage) {
  await using served = await serve((_req, res) =>
    refuseMcp(res, denial, { message, decisionId: 'd1', txn: 'T-42' }),
  )
  const response = await fetch(served.url, { method: 'POST' })
  const body: unknown = await response.json()
  return { status: response.status, headers: response.headers, body }
}

/** An MCP server that only initializes; everything else that waits for an answer is refused. */
function refusingServer(denial: Denial): Promise<Served> {
  return serve((req, res) => {
    const chunks: Buffer[] = []
    req.on('data', (chunk: Buffer) => chunks.push(chunk))
    req.on('end', () => {
      if (req.method !== 'POST') return res.writeHead(405).end()
      const rpc = JSON.parse(Buffer.concat(chunks).toString())
      if (rpc.id === undefined) return res.writeHead(202).end()
      if (rpc.method === 'initialize') {
        const result = {
          protocolVersion: rpc.params.protocolVersion,
          capabilities: { tools: {} },
          serverInfo: { name: 'test', version: '1' },
        }
        res.writeHead(200, { 'content-type': 'application/json' })
        return res.end(JSON.stringify({ jsonrpc: '2.0', id: rpc.id, result }))
      }
      const message: McpMessage =
        rpc.method === 'tools/call'
          ? { type: 'tools/call', id: rpc.id, tool: rpc.params.name, args: new Map() }
          : { type: 'request', id: rpc.id, method: rpc.method }
      return refuseMcp(res, denial, { message, decisionId: 'd1', txn: 'T-42' })
    })
  })
}

async function connect({ url }: Served): Promise<Client & AsyncDisposable> {
  const client = new Client({ name: 'test', version: '1' })
  await client.connect(new StreamableHTTPClientTransport(url))
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.close() })
}

describe('refuseMcp()', () => {
  test('refuseMcp() gives the official client a result with isError when a tool call is refused', async () => {
    await using served = await refusingServer(revoked)
    await using client = await connect(served)
    const result = await client.callTool({ name: 'search', arguments: { q: 'x' } })
    expect(result).toEqual({
      content: [{ type: 'text', text: denialText(revoked) }],
      isError: true,
      _meta: {
        'chaperone/denial': {
          code: 'task-terminated',
          decision_id: 'd1',
          retryable: false,
          txn: 'T-42',
          effective_at: '2026-01-02T00:00:00.000Z',
        },
      },
    })
  })

  test('refuseMcp() gives the official client an McpError when another request is refused', async () => {
    await using served = await refusingServer(revoked)
    await using client = await connect(served)
    await expect(client.listTools()).rejects.toMatchObject({
      name: 'McpError',
      code: -32011,
      message: expect.stringContaining(denialText(revoked)),
      data: { code: 'task-terminated', decision_id: 'd1', retryable: false, txn: 'T-42' },
    })
  })

  test('refuseMcp() writes the fields that every refusal has when it answers 200', async () => {
    const { status, headers } = await refused(deny('control-plane-stale', 'x'), call)
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('application/json')
    expect(headers.get('x-should-retry')).toBe('false')
    expect(headers.get('cache-control')).toBe('no-store')
    expect(headers.get('chaperone-decision')).toBe('d1')
    expect(headers.get('chaperone-denial')).toBe('control-plane-stale')
    expect(headers.get('retry-after')).toBe('1')
  })

  test('refuseMcp() speaks the rest dialect when nobody waits for an answer', async () => {
    const { status, body } = await refused(deny('policy-denied', 'x'), notification)
    expect(status).toBe(403)
    expect(body).toMatchObject({ code: 'policy-denied', txn: 'T-42' })
    const answer = await refused(deny('policy-denied', 'x'), { type: 'response', id: 1 })
    expect(answer.status).toBe(403)
  })

  test.each(['identity-required', 'identity-invalid'] as const)(
    'refuseMcp() answers 401 in the rest dialect when the code is %s',
    async (code) => {
      const { status, headers, body } = await refused(deny(code, 'x'), call)
      expect(status).toBe(401)
      expect(headers.get('www-authenticate')).toContain('Bearer')
      expect(body).toMatchObject({ code })
    },
  )
})

describe('mcpFinalMessage()', () => {
  test.each([
    ['policy-denied', -32010, false],
    ['request-refused', -32010, false],
    ['task-expired', -32010, false],
    ['control-plane-stale', -32010, true],
    ['task-terminated', -32011, false],
    ['agent-quarantined', -32011, false],
    ['task-paused', -32012, true],
    ['approval-required', -32013, false],
    ['approval-quorum', -32013, false],
  ] as const)('mcpFinalMessage() maps %s to %i', (code, rpcCode, retryable) => {
    expect(mcpFinalMessage(list, deny(code, 'x'), { decisionId: 'd1' })).toEqual({
      jsonrpc: '2.0',
      id: 2,
      error: {
        code: rpcCode,
        message: denialText({ code }),
        data: { code, decision_id: 'd1', retryable },
      },
    })
  })

  test('mcpFinalMessage() tells the agent nothing that is for operators only', () => {
    for (const message of [call, list]) {
      const text = JSON.stringify(mcpFinalMessage(message, revoked, { decisionId: 'd1' }))
      expect(text).not.toContain('audit only')
      expect(text).not.toContain('operator text')
      expect(text).not.toContain('ops')
    }
  })

  test('mcpFinalMessage() is undefined when nobody waits for an answer', () => {
    const denial = deny('policy-denied', 'x')
    expect(mcpFinalMessage(notification, denial, { decisionId: 'd1' })).toBeUndefined()
    expect(
      mcpFinalMessage({ type: 'response', id: 1 }, denial, { decisionId: 'd1' }),
    ).toBeUndefined()
  })
})
