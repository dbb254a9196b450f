import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** A request as the listener hands it over. An upgrade has its socket, and a response assigned to it for refusals. */
export interface Arrival {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly upgrade?: { readonly socket: Socket; readonly head: Buffer }
}
