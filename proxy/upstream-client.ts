import type { buildConnector as Connectors, Client, Dispatcher } from 'undici'
import buildConnector from 'undici/lib/core/connect.js'
import Pool from 'undici/lib/dispatcher/pool.js'
import type { UpstreamConfig } from '../config/schema.ts'
import { Http2Dispatcher } from './http2-dispatcher.ts'
import { guardedLookup, isForbidden, UpstreamAddressError } from './upstream-address.ts'
import { LinkedClient, type UpstreamLink } from './upstream-link.ts'

/** Connections to one upstream. */
export interface UpstreamClient {
  readonly dispatcher: Dispatcher
  /** Lets what is in flight end, then closes. */
  close(): Promise<void>
}

interface UpstreamClientOptions {
  readonly config: UpstreamConfig
  /** PEM of the authority that signs the upstream, instead of the public web PKI. */
  readonly ca: string | undefined
}

/** Opens nothing yet. Throws `UpstreamAddressError` when the URL names a forbidden address outright. */
export function createUpstreamClient({ config, ca }: UpstreamClientOptions): UpstreamClient {
  const { origin, hostname } = new URL(config.url)
  const guarded = !config.allowPrivateAddresses
  if (guarded && isForbidden(hostname.replace(/^\[|\]$/g, ''))) {
    throw new UpstreamAddressError(
      `Upstream "${config.name}": Expected a public address, or allowPrivateAddresses: true`,
    )
  }
  const lookup = guarded ? { lookup: guardedLookup } : {}
  if (config.protocol === 'http2') {
    const dispatcher = new Http2Dispatcher(new URL(origin), { config, ca, ...lookup })
    return { dispatcher, close: () => dispatcher.close() }
  }
  const options: Client.Options = {
    pipelining: 1,
    // One socket would carry all tasks: a cut would reach across them.
    allowH2: false,
    headersTimeout: config.headersTimeout,
    // A silent stream is a live stream: what ends it is the cut.
    bodyTimeout: 0,
    keepAliveTimeout: 4_000,
  }
  const connect = buildConnector({
    allowH2: false,
    timeout: config.connectTimeout,
    noDelay: true,
    ...(ca !== undefined && { ca }),
    ...lookup,
  })
  const pool = new Pool(origin, {
    ...options,
    connections: config.maxConnections,
    factory: (url) => linkedClient(url, { options, connect }),
  })
  return { dispatcher: pool, close: () => pool.close() }
}

function linkedClient(
  url: URL,
  {
    options,
    connect,
  }: { readonly options: Client.Options; readonly connect: Connectors.connector },
): Dispatcher {
  const link: UpstreamLink = { socket: undefined, requests: 0 }
  return new LinkedClient(url, {
    ...options,
    link,
    connect: (target, callback) => {
      connect(target, (...result) => {
        link.socket = result[1] ?? undefined
        link.requests = 0
        callback(...result)
      })
    },
  })
}
