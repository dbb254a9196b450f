import type { IncomingMessage, ServerResponse } from 'node:http'

/** How long an agent may go on sending a body whose answer it already has. */
const lingerMs = 1_000

/** The rest of a body must never be read as a next request: it is thrown away, or the connection ends. */
export function discardRest(req: IncomingMessage): void {
  const { socket } = req
  if (socket.destroyed) return
  // A listener, because `resume()` does nothing while the upstream's side still waits for a next piece.
  req.on('data', () => undefined)
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  timer.unref()
  req.once('close', () => clearTimeout(timer))
}

/** RST, not FIN: a client that reads until close would take a FIN for the end of the answer (RFC 9112 section 8). */
export function resetClient(res: ServerResponse): void {
  res.socket?.resetAndDestroy()
}

/**
 * Tells an agent that holds its body back to send it (RFC 9110 section 10.1.1). Only called once somebody is going to
 * read it: an agent that is refused keeps its bytes. Node leaves this to us, and closes the connection when it is left out.
 */
export function sendContinue(req: IncomingMessage, res: ServerResponse): void {
  const expects = req.headers.expect?.toLowerCase() === '100-continue'
  if (expects && req.httpVersion === '1.1' && !req.complete) res.writeContinue()
}

/** Whether the agent reads what stands behind a chunked body (RFC 9110 section 6.5.1). */
export function takesTrailers({ headers, httpVersion }: IncomingMessage): boolean {
  const te = headers.te
  if (httpVersion !== '1.1' || typeof te !== 'string') return false
  return te.split(',').some((coding) => coding.trim().toLowerCase() === 'trailers')
}
