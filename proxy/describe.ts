import { isDenial } from '../policy/denial.ts'
import type { Denial, McpMessage, Operation } from '../policy/types.ts'
import type { Config } from '../config/schema.ts'
import { sendContinue } from './agent-side.ts'
import type { AgentRequest, Arrival } from './arrival.ts'
import { readBoundedBody } from './bounded-body.ts'
import { Http2Request } from './http2-arrival.ts'
import { parseMcpMessage } from './mcp/message.ts'
import type { Routed } from './route-arrival.ts'

/** What is asked, and the body to forward: untouched bytes when policy had to read it. */
export interface Described {
  readonly operation: Operation
  readonly body: 'none' | 'stream' | Buffer
  /** SHA-256 of an inspected body, hex. */
  readonly bodySha256?: string
}

interface DescribeOptions {
  readonly route: Routed
  readonly limits: Config['limits']
}

/** Turns a request into the operation that policy decides on. */
export async function describe(
  arrival: Arrival,
  options: DescribeOptions,
): Promise<Described | Denial> {
  const { req, upgrade } = arrival
  const { path, query, upstream } = options.route
  const hasQuery = query !== undefined
  const method = req.method ?? ''
  if (upgrade) {
    return { operation: { kind: 'websocket', method: 'GET', path, hasQuery }, body: 'none' }
  }
  if (upstream.facts.kind === 'mcp' && method === 'POST') return describeMcp(arrival, options)
  return {
    operation: { kind: 'http', method, path, hasQuery },
    body: hasBody(req) ? 'stream' : 'none',
  }
}

async function describeMcp(
  { req, res }: Arrival,
  { route, limits }: DescribeOptions,
): Promise<Described | Denial> {
  // The decision needs the body. What comes in is bounded, and the agent and its task are known by now.
  sendContinue(req, res)
  const body = await readBoundedBody(req, {
    maxBytes: limits.maxMcpBytes,
    gapTimeoutMs: limits.bodyGapTimeout,
  })
  if (isDenial(body)) return body
  const parsed = parseMcpMessage(body, {
    maxBytes: limits.maxMcpBytes,
    maxDepth: limits.maxMcpDepth,
    headers: {
      contentType: req.headers['content-type'],
      mcpMethod: headerText(req.headers['mcp-method']),
      mcpName: headerText(req.headers['mcp-name']),
    },
  })
  if (isDenial(parsed)) return parsed
  const { path, query } = route
  const message: McpMessage = parsed.message
  return {
    operation: { kind: 'mcp', method: 'POST', path, hasQuery: query !== undefined, message },
    body,
    bodySha256: parsed.sha256,
  }
}

function headerText(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.join(',')
}

/** RFC 9112 section 6.3: a request has a body when it says so, whatever its method. */
export function hasBody(req: AgentRequest): boolean {
  // HTTP/2 needs no field to say so (RFC 9113 section 8.1).
  if (req instanceof Http2Request) return !req.isEmpty
  const { headers } = req
  if (headers['transfer-encoding'] !== undefined) return true
  const length = headers['content-length']
  return length !== undefined && length !== '0'
}
