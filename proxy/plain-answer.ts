import type { ServerResponse } from 'node:http'
import { withoutField, type AnswerHead } from './answer-head.ts'

/** A whole answer that was held until its end. */
export interface PlainAnswer extends AnswerHead {
  readonly pieces: Buffer[]
  length: number
}

/** Sends it with the length that it has: chunks and the upstream's own framing stay behind. The connection ends with it. */
export function sendPlainAnswer(res: ServerResponse, answer: PlainAnswer): void {
  const { status, message, headers, pieces } = answer
  withoutField(headers, 'content-length')
  if (status !== 204 && status !== 304) headers.push('content-length', String(answer.length))
  headers.push('connection', 'close')
  res.sendDate = false
  res.writeHead(status, message, headers)
  res.end(Buffer.concat(pieces))
}
