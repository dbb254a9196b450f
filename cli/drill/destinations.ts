import type { Config } from '../../config/schema.ts'
import { isDenial } from '../../policy/denial.ts'
import type { GrantClaims } from '../../policy/grant.ts'
import { compileRoutes, matchRoute } from '../../proxy/route.ts'
import type { FlowKind } from './flows.ts'

interface Flows {
  readonly targets: readonly string[]
  readonly paths: Readonly<Record<FlowKind, string>>
}

/** What the grants of a drill must name: the paths of its flows at the upstreams behind the targets, and nothing else. */
export function destinationsOf(
  config: Config,
  { targets, paths }: Flows,
): GrantClaims['authorization_details'] {
  const place = placesOf(config)
  return targets.flatMap((target) => {
    const at = (kind: FlowKind): Place => place(`${target.replace(/\/$/, '')}${paths[kind]}`)
    const reads = [at('poll'), at('sse'), at('download')]
    return [
      ...reads.map((read) => http('GET', read)),
      http('POST', at('upload')),
      webSocket(at('websocket')),
    ]
  })
}

interface Place {
  readonly origin: string
  readonly path: string
}

function placesOf(config: Config): (url: string) => Place {
  const table = compileRoutes(config)
  const origins = new Map(config.upstreams.map(({ name, url }) => [name, new URL(url).origin]))
  return (url) => {
    if (!URL.canParse(url)) throw new TypeError(`--target: ${url} is not a URL`)
    const { host, pathname } = new URL(url)
    const match = matchRoute(table, { host, path: pathname })
    const origin = isDenial(match) ? undefined : origins.get(match.route.upstreamName)
    if (isDenial(match) || origin === undefined) {
      throw new TypeError(`--target: no route of the configuration leads to ${host}${pathname}`)
    }
    return { origin, path: match.upstreamPath }
  }
}

type Entry = GrantClaims['authorization_details'][number]

function http(action: string, { origin, path }: Place): Entry {
  return { type: 'http_api', locations: [origin], actions: [action], paths: [path] }
}

function webSocket({ origin, path }: Place): Entry {
  return { type: 'ws', locations: [origin.replace(/^http/, 'ws')], paths: [path] }
}
