import { startSidecarProcess, type SidecarProcess } from '../test/kit/sidecar.ts'
import {
  bundleDocument,
  jwksDocument,
  names,
  signGrant,
  signingKey,
  signSvid,
} from '../test/kit/tokens.ts'

/** The built sidecar with everything on: two verifications, Cedar, a minted credential, audit to a file. */
export interface BenchSidecar extends AsyncDisposable {
  readonly process: SidecarProcess
  readonly port: number
  readonly readyMs: number
  /** A whole GET of this path for this task, as bytes. */
  request(path: string, txn: string): Buffer
}

interface SidecarOptions {
  readonly upstreamPort: number
  /** Without it the sidecar holds its revocations by itself. */
  readonly redisUrl?: string
}

/** Starts one with keys of its own and waits until it is ready. */
export async function startBenchSidecar(options: SidecarOptions): Promise<BenchSidecar> {
  const [agentAuthority, approver, minter] = await Promise.all([
    signingKey(),
    signingKey(),
    signingKey(),
  ])
  const from = performance.now()
  const sidecar = await startSidecarProcess({
    config: configText(options),
    files: {
      'bundle.json': bundleDocument([agentAuthority]),
      'approvers.json': jwksDocument([approver]),
      'mint.json': JSON.stringify({ keys: [minter.privateJwk] }),
    },
  })
  const location = `http://127.0.0.1:${options.upstreamPort}`
  const details = [
    { type: 'http_api', locations: [location], actions: ['GET'], paths: ['/**'] },
  ] as const
  return {
    process: sidecar,
    readyMs: performance.now() - from,
    port: Number(new URL(sidecar.agentUrl).port),
    request: (path, txn) =>
      requestBytes(path, {
        svid: signSvid(agentAuthority),
        grant: signGrant(approver, { claims: { txn, authorization_details: details } }),
      }),
    [Symbol.asyncDispose]: () => sidecar[Symbol.asyncDispose](),
  }
}

/** `/api` is the route's prefix; the other servers of the benchmark answer any path. */
function requestBytes(
  path: string,
  { svid, grant }: { readonly svid: string; readonly grant: string },
): Buffer {
  const fields = [
    'host: 127.0.0.1',
    'accept: */*',
    'user-agent: bench',
    `authorization: Bearer ${svid}`,
    `task-grant: ${grant}`,
  ]
  return Buffer.from(`GET /api${path} HTTP/1.1\r\n${fields.join('\r\n')}\r\n\r\n`)
}

function configText({ upstreamPort, redisUrl }: SidecarOptions): string {
  const source = redisUrl === undefined ? 'embedded' : `redis, redis: { url: "${redisUrl}" }`
  return `
version: 1
trustDomain: ${names.trustDomain}
identity: { trustBundles: [{ trustDomain: ${names.trustDomain}, file: bundle.json }] }
approvers: [{ iss: "${names.approver}", jwks: approvers.json }]
revocation: { source: ${source} }
upstreams:
  - name: api
    url: "http://127.0.0.1:${upstreamPort}"
    allowPrivateAddresses: true
    maxConnections: 1024
    credential: { mint: { audience: "https://api.example.org" } }
routes: [{ prefix: /api, upstream: api }]
mint: { issuer: "https://chaperone.example.org", keys: { file: mint.json } }
audit: { sink: audit.ndjson }
limits: { maxConnections: 2048 }
`
}
