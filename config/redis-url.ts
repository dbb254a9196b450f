export interface RedisAddress {
  /** Without the brackets of IPv6. */
  readonly host: string
  readonly port: number
}

/** What the URL of a store names: a server, or where to ask which server is the master by now. */
export type RedisTarget =
  | {
      readonly kind: 'server'
      readonly tls: boolean
      readonly address: RedisAddress
      readonly db: number
    }
  | {
      readonly kind: 'sentinel'
      readonly tls: boolean
      readonly hosts: readonly RedisAddress[]
      readonly master: string
      readonly db: number
    }
  | { readonly kind: 'cluster'; readonly tls: boolean; readonly hosts: readonly RedisAddress[] }

export const redisUrlExpected =
  'Expected redis://host:port, redis-sentinel://host:port,host:port/master or redis-cluster://host:port,host:port (rediss... for TLS), without user or password: use username and passwordFile'

const host = String.raw`(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d{1,5})?`
const hosts = `${host}(?:,${host}){0,15}`

/** The forms of a store's URL; ports are for `parseRedisUrl()`. */
export const redisUrlPattern = new RegExp(
  String.raw`^rediss?:\/\/${host}(?:\/\d{1,4})?$|` +
    String.raw`^rediss?-sentinel:\/\/${hosts}\/[\w.-]{1,255}(?:\/\d{1,4})?$|` +
    String.raw`^rediss?-cluster:\/\/${hosts}$`,
)

/** Undefined when it is not the URL of a store: then `redisUrlExpected` says what is. */
export function parseRedisUrl(text: string): RedisTarget | undefined {
  if (!redisUrlPattern.test(text)) return undefined
  const [scheme = '', , authority = '', ...path] = text.split('/')
  const tls = scheme.startsWith('rediss')
  const [, kind] = scheme.slice(0, -1).split('-')
  const defaultPort = kind === 'sentinel' ? 26_379 : 6379
  const addresses = authority.split(',').map((one) => toAddress(one, defaultPort))
  const [address] = addresses
  if (!address || !addresses.every(({ port }) => port > 0 && port < 65_536)) return undefined
  if (kind === 'cluster') return { kind, tls, hosts: addresses }
  if (kind === 'sentinel') {
    const [master = '', db = '0'] = path
    return { kind, tls, hosts: addresses, master, db: Number(db) }
  }
  return { kind: 'server', tls, address, db: Number(path[0] ?? 0) }
}

function toAddress(text: string, defaultPort: number): RedisAddress {
  const [, name = '', port = defaultPort] = /^(.+?)(?::(\d+))?$/.exec(text) ?? []
  return { host: name.replace(/^\[|\]$/g, ''), port: Number(port) }
}
