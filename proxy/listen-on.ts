import type { Server } from 'node:net'

/** An address could not be listened on. */
export class ListenError extends Error {
  override readonly name = 'ListenError'
  readonly code = 'ERR_LISTEN'
}

/** Listens on `host:port` (port 0: a free one) and returns the URL. Rejects with `ListenError`. */
export async function listenOn(
  server: Server,
  address: string,
  { scheme = 'http' }: { readonly scheme?: 'http' | 'https' } = {},
): Promise<string> {
  const at = parseAddress(address)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(at, resolve)
  try {
    await promise
  } catch (cause) {
    throw new ListenError(`Cannot listen on ${address}: ${codeOf(cause)}`, { cause })
  } finally {
    server.off('error', reject)
  }
  return `${scheme}://${authorityOf(server)}`
}

function parseAddress(address: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([0-9a-f:]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(address)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host === undefined || port > 65_535) {
    throw new ListenError('Expected an address such as "127.0.0.1:15080"')
  }
  return { host, port }
}

function authorityOf(server: Server): string {
  const bound = server.address()
  if (bound === null || typeof bound === 'string') throw new ListenError('Expected a TCP address')
  const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address
  return `${host}:${bound.port}`
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'ERR_UNKNOWN'
}
