import type { Socket } from 'node:net'

/**
 * Finds connections whose agent has stopped reading: bytes wait for it and none has left for `limitMs`. Looked at from
 * outside, once in a while, so that a request pays nothing for it. Of HTTP/2 a socket does not show what waits: each answer watches itself.
 */
export class UnreadAnswers {
  readonly #limitMs: number
  readonly #stuck = new WeakMap<Socket, { readonly left: number; readonly sinceMs: number }>()

  constructor({ limitMs }: { readonly limitMs: number }) {
    this.#limitMs = limitMs
  }

  /** Whether it is over the limit at `nowMs`, monotonic. Expected to be asked at least a few times within the limit. */
  isOverdue(socket: Socket, nowMs: number): boolean {
    if (socket.writableLength === 0) {
      this.#stuck.delete(socket)
      return false
    }
    const left = (socket.bytesWritten ?? 0) - socket.writableLength
    const known = this.#stuck.get(socket)
    if (known?.left === left) return nowMs - known.sinceMs > this.#limitMs
    this.#stuck.set(socket, { left, sinceMs: nowMs })
    return false
  }
}
