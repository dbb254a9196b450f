import type { AgentRequest, AgentResponse } from './arrival.ts'
import { Http2Response } from './http2-arrival.ts'
import { http } from './node-http.ts'
import { resetConnection } from './reset-connection.ts'

/** How long an agent may go on sending a body whose answer it already has. */
const lingerMs = 1_000
/** How long a final message may take to leave before the connection is reset after all. */
const finalMessageMs = 100

/** The rest of a body must never be read as a next request: it is thrown away, or the connection ends. */
export function discardRest(req: AgentRequest): void {
  // On a stream of HTTP/2 nothing comes after it, and its answer sees to the rest.
  if (!(req instanceof http.IncomingMessage) || req.socket.destroyed) return
  const { socket } = req
  // A listener, because `resume()` does nothing while the upstream's side still waits for a next piece.
  req.on('data', () => undefined)
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  timer.unref()
  req.once('close', () => clearTimeout(timer))
}

/**
 * RST, not FIN: a client that reads until close would take a FIN for the end of the answer (RFC 9112 section 8). HTTP/2
 * resets the one stream, with `http2Code` when the upstream gave one.
 */
export function resetClient(res: AgentResponse, http2Code?: number): void {
  if (res instanceof Http2Response) res.reset(http2Code)
  else if (res.socket) resetConnection(res.socket)
}

/** Ends an answer with a last message of ours. An end by length or by a last chunk would say that it is the upstream's. */
export function endWithFinal(res: AgentResponse, final: Buffer): void {
  if (res instanceof Http2Response) {
    res.end(final)
    const timer = setTimeout(() => res.reset(), finalMessageMs)
    timer.unref()
    res.once('close', () => clearTimeout(timer))
    return
  }
  res.write(final)
  const { socket } = res
  if (!socket) return
  socket.destroySoon()
  setTimeout(() => resetConnection(socket), finalMessageMs).unref()
}

/**
 * Tells an agent that holds its body back to send it (RFC 9110 section 10.1.1). Only called once somebody is going to
 * read it: an agent that is refused keeps its bytes. Node leaves this to us, and closes the connection when it is left out.
 */
export function sendContinue(req: AgentRequest, res: AgentResponse): void {
  const expects = req.headers.expect?.toLowerCase() === '100-continue'
  if (expects && req.httpVersion !== '1.0' && !req.complete) res.writeContinue()
}

/** Whether the agent reads what stands behind a body (RFC 9110 section 6.5.1). */
export function takesTrailers({ headers, httpVersion }: AgentRequest): boolean {
  const te = headers.te
  if (httpVersion === '1.0' || typeof te !== 'string') return false
  return te.split(',').some((coding) => coding.trim().toLowerCase() === 'trailers')
}
