/**
 * Every setting of `chaperone.yaml`: unit, default and bound in one place.
 * Durations are text with a unit (`250ms`, `5m`) and become milliseconds; sizes (`16KiB`) become bytes.
 * Secrets never stand here: a secret is `{ file: path }` and is re-read when the file changes.
 */
import * as v from 'valibot'
import { parseByteSize } from './byte-size.ts'
import { parseDuration } from './duration.ts'

/** The configuration after defaults: what the rest of the program sees. */
export type Config = v.InferOutput<typeof configSchema>
export type UpstreamConfig = Config['upstreams'][number]
export type RouteConfig = Config['routes'][number]
export type CredentialConfig = UpstreamConfig['credential']
export type ApproverConfig = Config['approvers'][number]
export type TrustBundleConfig = Config['identity']['trustBundles'][number]
export type RedisConfig = Extract<Config['revocation'], { source: 'redis' }>['redis']

const second = 1_000
const minute = 60 * second
const hour = 60 * minute

interface Bounds {
  readonly min: number
  readonly max: number
}

/** `30s` with bounds in milliseconds. */
function duration(fallback: string, bounds: Bounds) {
  return v.optional(
    v.pipe(
      v.string('Expected a duration such as "250ms", "30s" or "5m"'),
      v.rawTransform(({ dataset, addIssue, NEVER }) => {
        const ms = parseDuration(dataset.value)
        if (ms === undefined) {
          addIssue({ message: 'Expected a duration such as "250ms", "30s" or "5m"' })
          return NEVER
        }
        if (ms < bounds.min || ms > bounds.max) {
          addIssue({ message: `Expected a duration from ${bounds.min} ms to ${bounds.max} ms` })
          return NEVER
        }
        return ms
      }),
    ),
    fallback,
  )
}

/** `256KiB` with bounds in bytes. */
function byteSize(fallback: string, bounds: Bounds) {
  return v.optional(
    v.pipe(
      v.string('Expected a size such as "16KiB" or "1MiB"'),
      v.rawTransform(({ dataset, addIssue, NEVER }) => {
        const bytes = parseByteSize(dataset.value)
        if (bytes === undefined) {
          addIssue({ message: 'Expected a size such as "16KiB" or "1MiB"' })
          return NEVER
        }
        if (bytes < bounds.min || bytes > bounds.max) {
          addIssue({ message: `Expected a size from ${bounds.min} to ${bounds.max} bytes` })
          return NEVER
        }
        return bytes
      }),
    ),
    fallback,
  )
}

function count(fallback: number, bounds: Bounds) {
  return v.optional(
    v.pipe(
      v.number(),
      v.integer(),
      v.minValue(bounds.min, `Expected at least ${bounds.min}`),
      v.maxValue(bounds.max, `Expected at most ${bounds.max}`),
    ),
    fallback,
  )
}

const text = v.pipe(
  v.string(),
  v.minLength(1, 'Expected text that is not empty'),
  v.maxLength(2048),
)
const name = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'Expected a name of lower-case letters, digits and "-"'),
)
const trustDomain = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9._-]{1,255}$/, 'Expected a SPIFFE trust domain such as "prod.example.org"'),
)
const sensitivity = v.picklist(
  ['public', 'internal', 'confidential', 'restricted'],
  'Expected public, internal, confidential or restricted',
)
const address = v.pipe(
  v.string(),
  v.regex(
    /^(\[[0-9a-f:]+\]|[a-zA-Z0-9.-]+):\d{1,5}$/,
    'Expected host:port such as "127.0.0.1:15080"',
  ),
)
const httpUrl = v.pipe(
  v.string(),
  v.url('Expected an absolute http: or https: URL'),
  v.regex(
    /^https?:\/\/[^@?#]+$/,
    'Expected an http: or https: URL without userinfo, query or fragment',
  ),
)
const httpsUrl = v.pipe(
  v.string(),
  v.url('Expected an absolute https: URL'),
  v.regex(/^https:\/\/[^@?#]+$/, 'Expected an https: URL without userinfo, query or fragment'),
)
/** A literal secret in the file is an error by shape: only a path is accepted. */
const secret = v.strictObject(
  {
    file: v.pipe(text, v.description('Path of the file that holds the secret; re-read on change')),
  },
  'Expected { file: <path> }: a secret may not stand in the configuration',
)
const headerName = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9][a-z0-9-]{0,63}$/, 'Expected a lower-case header name'),
)

const trustBundle = v.union(
  [
    v.strictObject({ trustDomain, file: text }),
    v.strictObject({
      trustDomain,
      url: httpsUrl,
      /** How often to ask again; a `spiffe_refresh_hint` in the bundle wins, clamped to 10s..1h. */
      refresh: duration('5m', { min: 10 * second, max: hour }),
      /** PEM file of the authority that signs the endpoint, instead of the public web PKI. */
      caFile: v.optional(text),
    }),
  ],
  'Expected { trustDomain, file } or { trustDomain, url }',
)

const identity = v.strictObject({
  trustBundles: v.pipe(v.array(trustBundle), v.minLength(1, 'Expected at least one trust bundle')),
  /** The one leeway for every token time check. */
  clockSkew: duration('5s', { min: 0, max: minute }),
  /** A JWT-SVID whose `exp` lies further ahead than this is refused. */
  maxSvidTtl: duration('24h', { min: minute, max: 24 * hour }),
  /** A JWT-SVID of more bytes is refused before it is parsed. */
  maxSvidBytes: byteSize('8KiB', { min: 1024, max: 16_384 }),
  /** The most `aud` values that a JWT-SVID may have: every other audience could replay it here. */
  maxAudiences: count(4, { min: 1, max: 16 }),
  /** The last good bundle stays in use this long while its source is down; then its domain is refused. */
  maxBundleStaleness: duration('24h', { min: minute, max: 7 * 24 * hour }),
})

const approver = v.strictObject({
  /** The approver authority, exactly as grants name it in `iss`. */
  iss: text,
  /** JWK Set file with the authority's public keys; each key needs `kid` and `alg`. */
  jwks: text,
  /** A grant may not live longer than this. */
  maxTtl: duration('8h', { min: second, max: 24 * hour }),
  /** The highest sensitivity that this approver may sign. */
  maxSensitivity: v.optional(sensitivity, 'internal'),
  /** Purposes that this approver may sign. Absent: every purpose of `grants.purposes`. */
  purposes: v.optional(v.array(text)),
  /** Locations that this approver may sign, exact or `https://*.example.org`. Absent: every location. */
  locations: v.optional(v.array(text)),
})

const grants = v.strictObject({
  /** No grant may live longer than this, whoever signs. */
  maxTtl: duration('8h', { min: second, max: 24 * hour }),
  /** The vocabulary of purposes. Absent: any well-formed purpose. */
  purposes: v.optional(v.array(text)),
  /** A file that holds one compact grant: the one task of this pod. Re-read on change. */
  file: v.optional(text),
})

const redis = v.strictObject({
  url: v.pipe(
    v.string(),
    v.regex(
      /^rediss?:\/\/[^@/?#]+(\/\d{1,4})?$/,
      'Expected redis://host:port or rediss://host:port without user or password: use username and passwordFile',
    ),
  ),
  username: v.optional(text),
  passwordFile: v.optional(text),
  /** PEM file of the authority that signs the server, for rediss:. */
  caFile: v.optional(text),
  certFile: v.optional(text),
  keyFile: v.optional(text),
  /** Keys are `{<prefix>}:<trust domain>:...`. */
  prefix: v.optional(name, 'chaperone'),
})

const freshness = {
  /** How often the view proves that it is complete; jittered by 15 %. */
  syncInterval: duration('250ms', { min: 50, max: 10 * second }),
  /** Past this age of the view, writes are refused with `control-plane-stale`. */
  staleAfterWrites: duration('1s', { min: 100, max: 30 * second }),
  /** Past this age of the view, reads are refused with `control-plane-stale`. */
  staleAfterReads: duration('2s', { min: 100, max: minute }),
  /** Past this age of the view, live streams are cut: what they carry can no longer be revoked. */
  staleAfterStreams: duration('10s', { min: 500, max: 5 * minute }),
}

const revocation = v.variant('source', [
  v.strictObject({ source: v.literal('redis'), redis, ...freshness }),
  v.strictObject({ source: v.literal('embedded'), ...freshness }),
])

const injectSlot = v.union(
  [
    v.strictObject({
      header: headerName,
      /** `{secret}` stands for the secret. */
      template: v.optional(
        v.pipe(text, v.includes('{secret}', 'Expected "{secret}" in the template')),
        '{secret}',
      ),
      secret,
    }),
    v.strictObject({ basic: v.strictObject({ username: v.string() }), secret }),
    v.strictObject({ query: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{1,64}$/)), secret }),
  ],
  'Expected { header, secret }, { basic, secret } or { query, secret }',
)

const credential = v.union(
  [
    v.strictObject({ inject: injectSlot }),
    v.strictObject({
      mint: v.strictObject({
        /** `aud` of the minted `at+jwt`: this one upstream. */
        audience: text,
        /** Life of a minted credential; bounded by the grant's own expiry. */
        ttl: duration('2m', { min: 15 * second, max: 10 * minute }),
        scope: v.optional(v.array(text), []),
      }),
    }),
    v.strictObject({ none: v.literal(true) }),
  ],
  'Expected { inject }, { mint } or { none: true }',
)

const upstream = v.strictObject({
  name,
  /** Origin and optional base path. `https://api.example.org/v2` */
  url: httpUrl,
  kind: v.optional(v.picklist(['rest', 'mcp'], 'Expected rest or mcp'), 'rest'),
  /** The highest class of data behind this upstream: a task with a lower grant is refused. */
  sensitivity: v.optional(sensitivity, 'internal'),
  credential,
  /** PEM file of the authority that signs the upstream, instead of the public web PKI. */
  caFile: v.optional(text),
  /** Whether the upstream's address may be loopback, link-local or private. */
  allowPrivateAddresses: v.optional(v.boolean(), false),
  /** Whether `Set-Cookie` of the upstream may reach the agent: a cookie is a credential that outlives the task. */
  unsafeAllowSetCookie: v.optional(v.boolean(), false),
  connectTimeout: duration('5s', { min: 100, max: minute }),
  /** From the whole request sent to the head of the answer. */
  headersTimeout: duration('5m', { min: 100, max: hour }),
  maxConnections: count(64, { min: 1, max: 1024 }),
})

const route = v.union(
  [
    v.strictObject({
      /** First path segments of our listener: `/github`. Taken off before the request is judged and forwarded. */
      prefix: v.pipe(
        v.string(),
        v.regex(
          /^(\/[A-Za-z0-9._~-]+)+$/,
          'Expected a path such as "/github", without a trailing slash',
        ),
      ),
      upstream: name,
    }),
    v.strictObject({
      /** Exact authority of the Host field: `github.localhost:15080`. */
      host: v.pipe(v.string(), v.regex(/^[a-z0-9.-]+(:\d{1,5})?$/, 'Expected a host or host:port')),
      upstream: name,
    }),
  ],
  'Expected { prefix, upstream } or { host, upstream }',
)

export const configSchema = v.strictObject({
  version: v.literal(1, 'Expected 1'),
  /** The deployment's trust domain: names the Redis keys and the default audience. */
  trustDomain,
  /** What `aud` of an SVID and of a grant must name. Default: `spiffe://<trustDomain>/chaperone`. */
  audience: v.optional(text),
  listen: v.optional(
    v.strictObject({
      agent: v.optional(address, '127.0.0.1:15080'),
      admin: v.optional(address, '127.0.0.1:15081'),
      /** Whether the agent listener may be bound to an address that is not loopback. */
      unsafeNonLoopback: v.optional(v.boolean(), false),
    }),
    {},
  ),
  identity,
  approvers: v.pipe(v.array(approver), v.minLength(1, 'Expected at least one approver')),
  grants: v.optional(grants, {}),
  policy: v.optional(
    v.strictObject({
      /** Directory of `*.cedar` files, added to the shipped system policies. Absent: the shipped default policy. */
      directory: v.optional(text),
    }),
    {},
  ),
  revocation,
  upstreams: v.pipe(v.array(upstream), v.minLength(1, 'Expected at least one upstream')),
  routes: v.pipe(v.array(route), v.minLength(1, 'Expected at least one route')),
  /** Needed when an upstream has a `mint` credential. */
  mint: v.optional(
    v.strictObject({
      issuer: httpUrl,
      /** Private JWK Set file; the first key signs, all are published. */
      keys: secret,
    }),
  ),
  audit: v.optional(
    v.strictObject({
      /** `stdout`, or the path of a file that is appended to. */
      sink: v.optional(text, 'stdout'),
      /** How long a record may wait for the sink before the request is refused. */
      writeTimeout: duration('2s', { min: 10, max: minute }),
      /** The most records that wait for the sink; then requests are refused. */
      maxBacklog: count(10_000, { min: 1, max: 1_000_000 }),
    }),
    {},
  ),
  limits: v.optional(
    v.strictObject({
      maxHeadBytes: byteSize('16KiB', { min: 1024, max: 65_536 }),
      headTimeout: duration('10s', { min: second, max: minute }),
      /** The longest silence between two pieces of a request body. */
      bodyGapTimeout: duration('1m', { min: second, max: hour }),
      maxConnections: count(1024, { min: 1, max: 65_536 }),
      /** The most requests and streams in flight. */
      maxExchanges: count(4096, { min: 1, max: 1_000_000 }),
      /** An MCP message of more bytes is refused: it is judged whole or not at all. */
      maxMcpBytes: byteSize('256KiB', { min: 1024, max: 4 * 1024 * 1024 }),
      maxMcpDepth: count(16, { min: 2, max: 64 }),
    }),
    {},
  ),
  shutdown: v.optional(
    v.strictObject({
      /** From SIGTERM until live streams are cut. */
      drain: duration('20s', { min: 0, max: 10 * minute }),
    }),
    {},
  ),
  log: v.optional(
    v.strictObject({
      level: v.optional(v.picklist(['debug', 'info', 'warn', 'error']), 'info'),
    }),
    {},
  ),
})
