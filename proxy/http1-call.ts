import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import type { ParsedHead } from './answer-parser.ts'
import type { Http1Link } from './http1-link.ts'

/** One request and its answer, on a connection of their own for as long as it takes: tells the handler what undici would. */
export class Http1Call implements Dispatcher.DispatchController {
  readonly request: Dispatcher.DispatchOptions
  readonly handler: Dispatcher.DispatchHandler
  /** Where it is under way. */
  link: Http1Link | undefined
  reason: Error | null = null
  rawHeaders: string[] = []
  rawTrailers: string[] = []
  paused = false

  constructor(request: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler) {
    this.request = request
    this.handler = handler
  }

  get aborted(): boolean {
    return this.reason !== null
  }

  get isUpgrade(): boolean {
    return typeof this.request.upgrade === 'string'
  }

  /** Ends it and its connection; nothing is told of it any more but this. */
  abort(reason: Error): void {
    const { link } = this
    // One that is over already has left its connection to another, or it would cut a stranger's answer.
    if (this.aborted || !link) return
    this.reason = reason
    link.drop()
    this.fail(reason)
  }

  pause(): void {
    this.paused = true
    this.link?.pause()
  }

  resume(): void {
    this.paused = false
    this.link?.resume()
  }

  /** False when the handler does not want it sent any more. */
  begin(link: Http1Link): boolean {
    this.link = link
    this.handler.onRequestStart?.(this, {})
    return !this.aborted
  }

  head({ status, reason, fields }: ParsedHead): void {
    this.rawHeaders = fields
    this.handler.onResponseStart?.(this, status, {}, reason)
  }

  switched(socket: Socket, fields: string[]): void {
    this.link = undefined
    this.rawHeaders = fields
    this.handler.onRequestUpgrade?.(this, 101, recordOf(fields), socket)
  }

  end(trailers: string[]): void {
    this.link = undefined
    this.rawTrailers = trailers
    this.handler.onResponseEnd?.(this, {})
  }

  fail(error: Error): void {
    this.link = undefined
    const { body } = this.request
    if (body instanceof Readable) body.on('error', () => undefined).destroy()
    this.handler.onResponseError?.(this, error)
  }
}

/** By lower-case name, the first of each. */
function recordOf(fields: readonly string[]): Record<string, string> {
  const record = Object.create(null)
  for (let index = 0; index + 1 < fields.length; index += 2) {
    record[(fields[index] ?? '').toLowerCase()] ??= fields[index + 1] ?? ''
  }
  return record
}
