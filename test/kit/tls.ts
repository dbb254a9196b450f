import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { RequestListener } from 'node:http'
import { fileURLToPath } from 'node:url'

/** A certificate of `localhost` and 127.0.0.1 that signs itself, and is good for nothing else. */
export const localhostCertFile = fileURLToPath(new URL('tls/localhost.cert.pem', import.meta.url))

/** An HTTPS server of that certificate on a free port. */
export interface TlsServer extends AsyncDisposable {
  readonly url: string
}

export async function startTlsServer(answer: RequestListener): Promise<TlsServer> {
  const key = readFileSync(new URL('tls/localhost.key.pem', import.meta.url))
  const server: Server = createServer({ key, cert: readFileSync(localhostCertFile) }, answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new TypeError('Expected a TCP address')
  return {
    url: `https://localhost:${address.port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
