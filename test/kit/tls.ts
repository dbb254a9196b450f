import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { RequestListener } from 'node:http'
import { createSecureServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import { fileURLToPath } from 'node:url'
import { redisArgs } from './redis.ts'

/** A certificate of `localhost` and 127.0.0.1 that signs itself, and is good for nothing else. */
export const localhostCertFile = fileURLToPath(new URL('tls/localhost.cert.pem', import.meta.url))

export const localhostKeyFile = fileURLToPath(new URL('tls/localhost.key.pem', import.meta.url))

/** Of the same names, by nobody that anybody here trusts. */
export const strangerCertFile = fileURLToPath(new URL('tls/stranger.cert.pem', import.meta.url))
export const strangerKeyFile = fileURLToPath(new URL('tls/stranger.key.pem', import.meta.url))

/** What a Redis server of that certificate needs, and `redis-cli` to get in. */
export const redisTls = {
  args: redisArgs({
    'tls-cert-file': localhostCertFile,
    'tls-key-file': localhostKeyFile,
    'tls-ca-cert-file': localhostCertFile,
  }),
  options: {
    tls: true,
    cliArgs: [
      '--tls',
      ...redisArgs({ cacert: localhostCertFile, cert: localhostCertFile, key: localhostKeyFile }),
    ],
  },
} as const

/** An HTTPS server of that certificate on a free port. */
export interface TlsServer extends AsyncDisposable {
  readonly url: string
}

/** An HTTP/2 server of that certificate, which chooses `h2`. */
export async function startTlsHttp2Server(
  answer: (stream: ServerHttp2Stream) => void,
): Promise<TlsServer> {
  const key = readFileSync(new URL('tls/localhost.key.pem', import.meta.url))
  const server = createSecureServer({ key, cert: readFileSync(localhostCertFile) })
  const sessions = new Set<ServerHttp2Session>()
  server.on('session', (session) => sessions.add(session))
  server.on('stream', (stream) => answer(stream))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new TypeError('Expected a TCP address')
  return {
    url: `https://localhost:${address.port}`,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

export async function startTlsServer(answer: RequestListener): Promise<TlsServer> {
  const key = readFileSync(localhostKeyFile)
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
