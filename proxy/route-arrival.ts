import { deny, isDenial } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import type { Arrival } from './arrival.ts'
import { gate } from './gate.ts'
import { isGrpc } from './grpc.ts'
import { Http2Request } from './http2-arrival.ts'
import { matchRoute } from './route.ts'
import type { Snapshot, SnapshotUpstream } from './snapshot.ts'
import { parseTarget } from './target.ts'
import { checkHandshake } from './upgrade.ts'

/** Where a request goes: the route for metrics, the upstream, and the raw target that it will get. */
export interface Routed {
  readonly name: string
  readonly upstream: SnapshotUpstream
  /** Raw path at the upstream: judged, forwarded and audited as the same bytes. */
  readonly path: string
  readonly query: string | undefined
  /** The task named by a `/t/<txn>/` prefix. */
  readonly pathTxn: string | undefined
  /** Epoch milliseconds: until then what policies refuse here is allowed. */
  readonly unsafeObserveUntilMs?: number | undefined
}

/** Refuses whatever has more than one reading, then finds the upstream in the closed table of routes. */
export function routeArrival(arrival: Arrival, snapshot: Snapshot): Routed | Denial {
  const { req, upgrade } = arrival
  const malformed = gate(req) ?? (upgrade && checkHandshake(req))
  if (malformed) return malformed
  const target = parseTarget(req.url ?? '')
  if (!target.ok) return deny('request-refused', target.detail)
  const match = matchRoute(snapshot.routes, { host: req.headers.host ?? '', path: target.path })
  if (isDenial(match)) return match
  const upstream = snapshot.upstreams.get(match.route.upstreamName)
  if (!upstream) return deny('request-refused', 'no upstream of this name')
  const unspoken = checkProtocol(arrival, upstream)
  if (unspoken) return unspoken
  return {
    name: match.route.name,
    upstream,
    path: match.upstreamPath,
    query: target.query,
    pathTxn: match.txn,
    unsafeObserveUntilMs: match.route.unsafeObserveUntilMs,
  }
}

/** What one version of HTTP has and another has not. */
function checkProtocol(
  { req, upgrade }: Arrival,
  { config }: SnapshotUpstream,
): Denial | undefined {
  const isHttp2 = config.protocol === 'http2'
  if (upgrade && isHttp2) return deny('request-refused', 'upgrade: the upstream speaks HTTP/2')
  if (!isGrpc(req)) return undefined
  if (!(req instanceof Http2Request)) return deny('request-refused', 'grpc: not over HTTP/2')
  return isHttp2 ? undefined : deny('request-refused', 'grpc: the upstream does not speak HTTP/2')
}
