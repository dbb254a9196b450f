import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Http2Request, Http2Response } from './http2-arrival.ts'

/** What an agent asks, whichever version of HTTP it speaks. */
export type AgentRequest = IncomingMessage | Http2Request

/** Where its answer goes. */
export type AgentResponse = ServerResponse | Http2Response

/** A request as the listener hands it over. */
export interface Arrival {
  readonly req: AgentRequest
  readonly res: AgentResponse
  /** An upgrade of HTTP/1 has its socket, and a response assigned to it for refusals. */
  readonly upgrade?: {
    readonly socket: Socket
    readonly head: Buffer
    readonly res: ServerResponse
  }
}

/** One that came on a connection of its own. */
export interface Http1Arrival extends Arrival {
  readonly req: IncomingMessage
  readonly res: ServerResponse
}
