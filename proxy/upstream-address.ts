import { lookup } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'

/** An upstream's address is one that this upstream may not have. */
export class UpstreamAddressError extends Error {
  override readonly name = 'UpstreamAddressError'
  readonly code = 'ERR_UPSTREAM_ADDRESS'
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

/** Whether this is an address, and one that a name must not lead to by itself. */
export function isForbidden(address: string): boolean {
  return isIP(address) !== 0 && forbidden.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

/** The addresses that are checked here are the ones that are dialled: a resolver cannot change its answer in between. */
export const guardedLookup: LookupFunction = (hostname, options, callback) => {
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
