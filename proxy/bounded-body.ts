import { deny, isDenial } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import type { AgentRequest } from './arrival.ts'

/**
 * Reads a body whole, or refuses: never a part of one. `gapTimeoutMs` is the longest silence between two pieces. After a
 * refusal what still comes is dropped; whoever answers ends the connection.
 */
export function readBoundedBody(
  req: AgentRequest,
  options: { readonly maxBytes: number; readonly gapTimeoutMs: number },
): Promise<Buffer | Denial> {
  const { maxBytes, gapTimeoutMs } = options
  const declared = req.headers['content-length']
  if (declared !== undefined && Number(declared) > maxBytes) return Promise.resolve(tooLarge())
  if (req.destroyed || req.errored) return Promise.resolve(aborted())
  const { promise, resolve } = Promise.withResolvers<Buffer | Denial>()
  const body = new GrowingBuffer(maxBytes)

  const timer = setTimeout(() => settle(deny('request-refused', 'body: too slow')), gapTimeoutMs)
  req.on('data', take)
  req.on('end', end)
  req.on('error', abort)
  req.on('close', abort)
  return promise

  function take(chunk: Buffer): void {
    timer.refresh()
    if (!body.append(chunk)) settle(tooLarge())
  }
  function end(): void {
    settle(req.complete ? body.bytes() : aborted())
  }
  function abort(): void {
    settle(aborted())
  }
  function settle(result: Buffer | Denial): void {
    clearTimeout(timer)
    req.off('data', take)
    req.off('end', end)
    req.off('close', abort)
    // An aborted request emits 'error' after its refusal: without a listener that would end the process.
    if (!isDenial(result)) req.off('error', abort)
    resolve(result)
  }
}

/** One allocation that doubles: a body in one-byte pieces costs no more memory than one in a piece. */
class GrowingBuffer {
  readonly #maxBytes: number
  #held: Buffer = Buffer.alloc(0)
  #length = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** False when the limit is passed; then nothing was taken. */
  append(chunk: Buffer): boolean {
    const length = this.#length + chunk.length
    if (length > this.#maxBytes) return false
    if (length > this.#held.length) this.#grow(length)
    chunk.copy(this.#held, this.#length)
    this.#length = length
    return true
  }

  bytes(): Buffer {
    return this.#held.subarray(0, this.#length)
  }

  #grow(length: number): void {
    const capacity = Math.min(this.#maxBytes, Math.max(length, this.#held.length * 2, 4096))
    const next = Buffer.alloc(capacity)
    this.#held.copy(next, 0, 0, this.#length)
    this.#held = next
  }
}

function tooLarge(): Denial {
  return deny('request-refused', 'body: larger than the limit')
}

function aborted(): Denial {
  return deny('request-refused', 'body: ended before it was complete')
}
