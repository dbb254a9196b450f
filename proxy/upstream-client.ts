import { lookup } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'
import { Pool, type Dispatcher } from 'undici'
import type { UpstreamConfig } from '../config/schema.ts'

/** Connections to one upstream. */
export interface UpstreamClient {
  readonly dispatcher: Dispatcher
  /** Lets what is in flight end, then closes. */
  close(): Promise<void>
}

/** An upstream's address is one that this upstream may not have. */
export class UpstreamAddressError extends Error {
  override readonly name = 'UpstreamAddressError'
  readonly code = 'ERR_UPSTREAM_ADDRESS'
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
  const literal = hostname.replace(/^\[|\]$/g, '')
  if (guarded && isIP(literal) !== 0 && isForbidden(literal)) {
    throw new UpstreamAddressError(
      `Upstream "${config.name}": Expected a public address, or allowPrivateAddresses: true`,
    )
  }
  const pool = new Pool(origin, {
    connections: config.maxConnections,
    pipelining: 1,
    // One socket would carry all tasks: a cut would reach across them.
    allowH2: false,
    headersTimeout: config.headersTimeout,
    // A silent stream is a live stream: what ends it is the cut.
    bodyTimeout: 0,
    keepAliveTimeout: 4_000,
    connect: {
      timeout: config.connectTimeout,
      noDelay: true,
      ...(ca !== undefined && { ca }),
      ...(guarded && { lookup: guardedLookup }),
    },
  })
  return { dispatcher: pool, close: () => pool.close() }
}

/** Private, link-local, loopback, metadata, multicast and reserved ranges: where a name must not lead by itself. */
const forbidden = new BlockList()
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 3],
] as const) {
  forbidden.addSubnet(network, prefix, 'ipv4')
}
for (const [network, prefix] of [
  ['::', 96],
  // Translation and tunnels: an IPv4 address of any range stands within.
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
  ['2001::', 32],
  ['2002::', 16],
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
] as const) {
  forbidden.addSubnet(network, prefix, 'ipv6')
}

function isForbidden(address: string): boolean {
  return forbidden.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

/** The addresses that are checked here are the ones that are dialled: a resolver cannot change its answer in between. */
const guardedLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, [])
    const allowed = addresses.filter(({ address }) => !isForbidden(address))
    const [first] = allowed
    if (!first) {
      return callback(new UpstreamAddressError(`No public address for ${hostname}`), [])
    }
    if (options.all === true) return callback(null, allowed)
    return callback(null, first.address, first.family)
  })
}
