import type { Denial, McpMessage } from '../policy/types.ts'
import type { Arrival } from './arrival.ts'
import { refuse } from './denial.ts'
import { isGrpc, refuseGrpc } from './grpc.ts'
import { Http2Request } from './http2-arrival.ts'
import { refuseMcp } from './mcp/denial.ts'
import { http } from './node-http.ts'

interface RefuseContext {
  readonly decisionId: string
  readonly txn: string | undefined
  /** The MCP message that is refused, once it was read. */
  readonly message: McpMessage | undefined
}

/** A body up to this size is read to its end, so that the connection can live on. */
const drainedBodyBytes = 64 * 1024
/** How long a client that is still sending gets to read its refusal. */
const lingerMs = 1_000

/** Writes a refusal in the dialect of what was asked and returns its HTTP status. The body is never taken for a next request. */
export function refuseArrival(arrival: Arrival, denial: Denial, context: RefuseContext): number {
  const { req, res, upgrade } = arrival
  if (res.headersSent || res.destroyed) return res.statusCode
  const { decisionId, txn, message } = context
  const close = upgrade !== undefined || !isBodySmall(arrival)
  if (req instanceof Http2Request && isGrpc(req)) refuseGrpc(res, denial, decisionId)
  else if (message) refuseMcp(res, denial, { message, decisionId, txn })
  else refuse(res, denial, { decisionId, txn, accept: req.headers.accept, close })
  if (close) linger(arrival)
  return res.statusCode
}

function isBodySmall({ req }: Arrival): boolean {
  // A stream of HTTP/2 has no next request on it.
  if (req.complete || !(req instanceof http.IncomingMessage)) return true
  if (req.headers['transfer-encoding'] !== undefined) return false
  return Number(req.headers['content-length'] ?? 0) <= drainedBodyBytes
}

/**
 * Closing at once while the client still sends would reset the connection under the refusal. Reads on for a moment,
 * forwards nothing, then closes.
 */
function linger({ req, res }: Arrival): void {
  if (!(req instanceof http.IncomingMessage && res instanceof http.ServerResponse)) return
  const { socket } = req
  let read = 0
  req.on('data', (chunk: Buffer) => {
    read += chunk.length
    if (read > drainedBodyBytes) socket.destroy()
  })
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  timer.unref()
  socket.once('close', () => clearTimeout(timer))
  res.once('finish', () => socket.end())
}
