import type { Dispatcher } from 'undici'
import type { UpstreamConfig } from '../config/schema.ts'
import { Http1Dispatcher } from './http1-dispatcher.ts'
import { Http2Dispatcher } from './http2-dispatcher.ts'
import { guardedLookup, isForbidden, UpstreamAddressError } from './upstream-address.ts'

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
  const dispatcher = new Http1Dispatcher(new URL(origin), { config, ca, ...lookup })
  return { dispatcher, close: () => dispatcher.close() }
}
