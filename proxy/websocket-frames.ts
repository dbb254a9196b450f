import { randomBytes } from 'node:crypto'

/**
 * Follows the frames of one direction of a WebSocket (RFC 6455 section 5.2), to know where one ends: a close frame may
 * stand only between frames.
 */
export class WebSocketFrames {
  /** Payload bytes of the current frame that are still to come. */
  #left = 0n
  /** Header bytes of the next frame that came already. */
  readonly #header = Buffer.alloc(14)
  #headerLength = 0

  get atBoundary(): boolean {
    return this.#left === 0n && this.#headerLength === 0
  }

  push(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#left > 0n) {
        const skipped = Math.min(chunk.length - at, Number(this.#left))
        at += skipped
        this.#left -= BigInt(skipped)
        continue
      }
      this.#header[this.#headerLength++] = chunk[at++] ?? 0
      const length = payloadLength(this.#header.subarray(0, this.#headerLength))
      if (length === undefined) continue
      this.#left = length
      this.#headerLength = 0
    }
  }
}

/** Undefined while the header is not whole. */
function payloadLength(header: Buffer): bigint | undefined {
  const second = header[1]
  if (second === undefined) return undefined
  const short = second & 0x7f
  const extended = short === 127 ? 8 : short === 126 ? 2 : 0
  const mask = second & 0x80 ? 4 : 0
  if (header.length < 2 + extended + mask) return undefined
  if (extended === 0) return BigInt(short)
  return extended === 2 ? BigInt(header.readUInt16BE(2)) : header.readBigUInt64BE(2)
}

/** An unmasked close frame, as servers send it: 1008 (policy violation) and the reason, at most 123 bytes. */
export function closeFrame(reason: string): Buffer {
  const payload = closePayload(reason)
  return Buffer.concat([Buffer.from([0x88, payload.length]), payload])
}

/** The same as a client sends it: RFC 6455 section 5.3 wants a mask that nobody can foresee. */
export function maskedCloseFrame(reason: string): Buffer {
  const mask = randomBytes(4)
  const payload = closePayload(reason).map((byte, index) => byte ^ (mask[index % 4] ?? 0))
  return Buffer.concat([Buffer.from([0x88, 0x80 | payload.length]), mask, payload])
}

function closePayload(reason: string): Buffer {
  const text = Buffer.from(reason, 'utf8').subarray(0, 123)
  return Buffer.concat([Buffer.from([0x03, 0xf0]), text])
}
