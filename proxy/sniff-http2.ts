import type { Socket } from 'node:net'

interface Sniffed {
  readonly http1: () => void
  readonly http2: () => void
  /** Nothing that decides it came within `timeoutMs`, or nothing at all. */
  readonly late: (came: { readonly isSilent: boolean }) => void
  readonly timeoutMs: number
}

/**
 * Tells the versions of HTTP apart on one port by the preface that every HTTP/2 client begins with (RFC 9113 section
 * 3.4). Consumes nothing: whoever takes the socket reads from its first byte.
 */
export function sniffHttp2(socket: Socket, { http1, http2, late, timeoutMs }: Sniffed): void {
  let held: Buffer = Buffer.alloc(0)
  const timer = setTimeout(() => {
    leave()
    late({ isSilent: held.length === 0 })
  }, timeoutMs)
  timer.unref()
  socket.on('readable', look)
  socket.on('close', leave)

  function look(): void {
    const bytes: unknown = socket.read()
    if (!Buffer.isBuffer(bytes)) {
      // The end came before a request did.
      if (socket.readableEnded) socket.destroy()
      return
    }
    held = held.length === 0 ? bytes : Buffer.concat([held, bytes])
    const length = Math.min(held.length, preface.length)
    const mayBe = preface.subarray(0, length).equals(held.subarray(0, length))
    if (mayBe && length < preface.length) return
    leave()
    socket.unshift(held)
    if (mayBe) http2()
    else http1()
  }

  function leave(): void {
    clearTimeout(timer)
    socket.off('readable', look)
    socket.off('close', leave)
  }
}

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
