import { connect as connectTcp, isIP, type LookupFunction, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { UpstreamLinkError } from './upstream-link-error.ts'

export interface DialOptions {
  readonly connectTimeoutMs: number
  /** PEM of the authority that signs the upstream, instead of the public web PKI. */
  readonly ca: string | undefined
  /** Checks the addresses that are dialled. */
  readonly lookup?: LookupFunction
  /** What is offered to a TLS upstream (ALPN). */
  readonly protocol: 'h2' | 'http/1.1'
  /** Of an earlier connection to it: TLS then takes fewer turns. */
  readonly session?: Buffer | undefined
  /** What goes wrong after the network's own errors. Must end the connection. */
  fail(error: UpstreamLinkError): void
}

/** Opens a connection; `connected()` is called once TLS is through too. */
export function dial(origin: URL, options: DialOptions & { connected?(): void }): Socket {
  const { lookup, ca, session, protocol } = options
  const host = origin.hostname.replace(/^\[|\]$/g, '')
  const isSecure = origin.protocol === 'https:'
  const port = Number(origin.port || (isSecure ? 443 : 80))
  const target = {
    host,
    port,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
    ...(lookup && { lookup }),
  }
  const socket = isSecure
    ? connectTls({
        ...target,
        ALPNProtocols: [protocol],
        ...(isIP(host) === 0 && { servername: host }),
        ...(ca !== undefined && { ca }),
        ...(session && { session }),
      })
    : connectTcp(target)
  const timer = setTimeout(() => {
    options.fail(new UpstreamLinkError('ERR_UPSTREAM_CONNECT_TIMEOUT', 'No connection in time'))
  }, options.connectTimeoutMs)
  socket.once('close', () => clearTimeout(timer))
  socket.once(isSecure ? 'secureConnect' : 'connect', () => {
    clearTimeout(timer)
    const isHttp2 = !isSecure || ('alpnProtocol' in socket && socket.alpnProtocol === 'h2')
    if (protocol === 'h2' && !isHttp2) {
      const message = 'The upstream did not choose HTTP/2'
      return options.fail(new UpstreamLinkError('ERR_UPSTREAM_PROTOCOL', message))
    }
    options.connected?.()
  })
  return socket
}
