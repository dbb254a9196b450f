import type { Denial, DenialCode, McpMessage } from '../../policy/types.ts'
import type { AgentResponse } from '../arrival.ts'
import { denialHeaders, denialText, refuse } from '../denial.ts'

/** What a refusal of an MCP message needs besides its reason. */
export interface McpRefusalContext {
  readonly message: McpMessage
  readonly decisionId: string
  readonly txn?: string | undefined
}

/**
 * Refuses an MCP message so that the agent's model reads why. What waits for an answer gets one with HTTP 200, because
 * clients turn every other status into a transport error: `tools/call` a result with `isError`, other requests a
 * JSON-RPC error. Notifications and responses have no answer to put it in: status and body of the `rest` dialect. So
 * has a refused identity, which is 401 whatever was asked.
 */
export function refuseMcp(res: AgentResponse, denial: Denial, context: McpRefusalContext): void {
  const { message, decisionId, txn } = context
  const answer = isIdentityCode(denial.code)
    ? undefined
    : mcpFinalMessage(message, denial, { decisionId, txn })
  if (answer === undefined) {
    refuse(res, denial, { decisionId, txn })
    return
  }
  const body = JSON.stringify(answer)
  const headers = denialHeaders(denial.code, decisionId)
  headers.push('content-type', 'application/json')
  headers.push('content-length', String(Buffer.byteLength(body)))
  res.sendDate = false
  res.writeHead(200, headers)
  res.end(body)
}

/** The JSON-RPC message that ends a request with a refusal; undefined when nobody waits for one. */
export function mcpFinalMessage(
  message: McpMessage,
  denial: Denial,
  context: Omit<McpRefusalContext, 'message'>,
): object | undefined {
  if (message.type === 'notification' || message.type === 'response') return undefined
  const outcome =
    message.type === 'tools/call'
      ? { result: toolResult(denial, context) }
      : { error: rpcError(denial, context) }
  return { jsonrpc: '2.0', id: message.id, ...outcome }
}

/**
 * `_meta` key: one label as prefix, then a name, which is what the MCP specification's rule for `_meta` asks for. Only
 * prefixes whose labels hold `modelcontextprotocol` or `mcp` are reserved.
 */
const metaKey = 'chaperone/denial'

/** Codes that are not the plain refusal. -32000 to -32019 are free for implementations; MCP reserves the rest. */
const rpcCodeOf: Readonly<Partial<Record<DenialCode, number>>> = {
  'task-terminated': -32011,
  'agent-quarantined': -32011,
  'task-paused': -32012,
  'approval-required': -32013,
  'approval-quorum': -32013,
}
const rpcDenied = -32010

/** What passes by itself. Nothing else is worth a second try. */
const retryable: ReadonlySet<DenialCode> = new Set(['task-paused', 'control-plane-stale'])

function toolResult(denial: Denial, context: Omit<McpRefusalContext, 'message'>): object {
  return {
    content: [{ type: 'text', text: denialText(denial) }],
    isError: true,
    _meta: { [metaKey]: machineFields(denial, context) },
  }
}

function rpcError(denial: Denial, context: Omit<McpRefusalContext, 'message'>): object {
  return {
    code: rpcCodeOf[denial.code] ?? rpcDenied,
    message: denialText(denial),
    data: machineFields(denial, context),
  }
}

function machineFields(
  denial: Denial,
  { decisionId, txn }: Omit<McpRefusalContext, 'message'>,
): object {
  return {
    code: denial.code,
    decision_id: decisionId,
    retryable: retryable.has(denial.code),
    ...(txn !== undefined && { txn }),
    ...(denial.revocation && { effective_at: new Date(denial.revocation.atMs).toISOString() }),
  }
}

function isIdentityCode(code: DenialCode): boolean {
  return code === 'identity-required' || code === 'identity-invalid'
}
