import type { Socket } from 'node:net'

/** What a connection with TLS runs over: only that can be reset. */
const carriers = new WeakMap<Socket, Socket>()

/**
 * RST, not FIN: what was written and not yet taken by the other side is thrown away, and no end is said (RFC 9112 section
 * 8). Of TLS the connection below is reset, without the `close_notify` that would say that all of it came.
 */
export function resetConnection(socket: Socket): void {
  const carrier = carriers.get(socket)
  if (!carrier) {
    socket.resetAndDestroy()
    return
  }
  if (!carrier.destroyed) carrier.resetAndDestroy()
  socket.destroy()
}

/** Tells which connection the TLS of `socket` runs over. */
export function carriedBy(socket: Socket, carrier: Socket): void {
  carriers.set(socket, carrier)
}
