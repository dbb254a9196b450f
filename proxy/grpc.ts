import type { Denial, DenialCode } from '../policy/types.ts'
import type { AgentRequest, AgentResponse } from './arrival.ts'
import { denialHeaders, denialText } from './denial.ts'

/** Whether a request is a gRPC call. gRPC-Web is not: it has its status in the body, and needs no HTTP/2. */
export function isGrpc({ headers }: AgentRequest): boolean {
  return grpcType.test(headers['content-type'] ?? '')
}

/**
 * Refuses a call in the form that a gRPC client reads: HTTP 200 and a head that ends the stream ("trailers-only"), with
 * the status that says whether another try may help.
 */
export function refuseGrpc(res: AgentResponse, denial: Denial, decisionId: string): void {
  const message = `${denial.code}: ${denialText(denial)} (decision ${decisionId})`
  const headers = denialHeaders(denial.code, decisionId)
  headers.push('content-type', 'application/grpc', 'grpc-status', String(grpcStatus[denial.code]))
  headers.push('grpc-message', percentEncoded(message))
  res.sendDate = false
  res.writeHead(200, headers)
  res.end()
}

/** `application/grpc`, with a message format or parameters behind it. */
const grpcType = /^application\/grpc(?:$|[+; ])/i

const invalidArgument = 3
const permissionDenied = 7
const resourceExhausted = 8
const unavailable = 14
const unauthenticated = 16

/** UNAVAILABLE is what clients retry: only for what passes by itself or may be answered elsewhere. */
const grpcStatus: Readonly<Record<DenialCode, number>> = {
  'identity-required': unauthenticated,
  'identity-invalid': unauthenticated,
  'credential-ambiguous': invalidArgument,
  'task-grant-required': permissionDenied,
  'task-grant-invalid': permissionDenied,
  'task-conflict': permissionDenied,
  'task-expired': permissionDenied,
  'task-terminated': permissionDenied,
  'task-paused': unavailable,
  'agent-quarantined': permissionDenied,
  'policy-denied': permissionDenied,
  'approval-required': permissionDenied,
  'approval-quorum': permissionDenied,
  'task-limit': resourceExhausted,
  'control-plane-stale': unavailable,
  'upstream-credential-unavailable': unavailable,
  'upstream-credential-rejected': permissionDenied,
  'upstream-unreachable': unavailable,
  'request-refused': invalidArgument,
}

/** The encoding of `grpc-message`: every byte but printable ASCII, and `%` itself. */
function percentEncoded(message: string): string {
  return Array.from(Buffer.from(message, 'utf8'), (byte) =>
    byte < 0x20 || byte > 0x7e || byte === 0x25
      ? `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
      : String.fromCharCode(byte),
  ).join('')
}
