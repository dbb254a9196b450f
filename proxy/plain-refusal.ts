import type { Duplex } from 'node:stream'
import { denialText } from './denial.ts'
import { http } from './node-http.ts'

/** Writes a whole answer to a stream that no response object speaks for, then ends it. */
export function endWithRefusal(stream: Duplex, status: number): void {
  const body = refusalBody(status)
  const fields = refusalFields(body).map(([name, value]) => `${name}: ${value}\r\n`)
  stream.on('error', () => stream.destroy())
  stream.end(
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? ''}\r\n${fields.join('')}\r\n${body}`,
    () => stream.destroy(),
  )
}

/** The members that `refuse()` writes, without a decision: nothing was read that could be decided. */
export function refusalBody(status: number): string {
  const code = 'request-refused'
  const message = denialText({ code })
  return JSON.stringify({
    type: `urn:chaperone:denial:${code}`,
    title: code,
    status,
    detail: message,
    code,
    retryable: false,
    message,
    error: { code, type: 'permission_error', message },
  })
}

export function refusalFields(body: string): readonly (readonly [string, string])[] {
  return [
    ['content-type', 'application/json'],
    ['content-length', String(Buffer.byteLength(body))],
    ['x-should-retry', 'false'],
    ['cache-control', 'no-store'],
    ['chaperone-denial', 'request-refused'],
    ['connection', 'close'],
  ]
}
