import type { Server } from 'node:net'

/** An address could not be listened on. */
export class ListenError extends Error {
  override readonly name = 'ListenError'
  readonly code = 'ERR_LISTEN'
}

/** Listens on `host:port` (port 0: a free one) and returns the URL. Rejects with `ListenError`. */
export function listenOn(server: Server, address: string): Promise<string> {
  const colon = address.lastIndexOf(':')
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '')
  const port = Number(address.slice(colon + 1))
  return new Promise((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new ListenError(`Cannot listen on ${address}: ${codeOf(cause)}`, { cause })),
    )
    server.listen({ host, port }, () => {
      const bound = server.address()
      if (bound === null || typeof bound === 'string')
        return reject(new ListenError(`Cannot listen on ${address}`))
      const name = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address
      resolve(`http://${name}:${bound.port}`)
    })
  })
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message
}
