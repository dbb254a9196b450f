/** The part of the schema that says where requests go, and with which credential. */
import * as v from 'valibot'
import {
  count,
  describedText,
  duration,
  flag,
  hour,
  httpUrl,
  minute,
  name,
  observeUntil,
  second,
  secret,
  sensitivity,
  text,
  headerName,
} from './setting.ts'

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
        audience: describedText('`aud` of the minted `at+jwt`: this one upstream.'),
        ttl: duration('2m', {
          min: 15 * second,
          max: 10 * minute,
          about: "Life of a minted credential; bounded by the grant's own expiry.",
        }),
        scope: v.optional(v.array(text), []),
      }),
    }),
    v.strictObject({ none: v.literal(true) }),
  ],
  'Expected { inject }, { mint } or { none: true }',
)

export const upstream = v.strictObject({
  name,
  /** Origin and optional base path. `https://api.example.org/v2` */
  url: httpUrl,
  kind: v.optional(v.picklist(['rest', 'mcp'], 'Expected rest or mcp'), 'rest'),
  protocol: v.optional(
    v.pipe(
      v.picklist(['http1', 'http2'], 'Expected http1 or http2'),
      v.description(
        'What is spoken with the upstream. `http2` is what gRPC needs; over TLS the upstream must choose `h2`, over `http:` it must expect HTTP/2 from the first byte.',
      ),
    ),
    'http1',
  ),
  sensitivity: v.optional(
    v.pipe(
      sensitivity,
      v.description(
        'The highest class of data behind this upstream: a task with a lower grant is refused.',
      ),
    ),
    'internal',
  ),
  tools: v.optional(
    describedText(
      'File with the JSON of its MCP `tools/list`: policies may then speak of typed arguments, and a call whose arguments are not as declared is refused.',
    ),
  ),
  openapi: v.optional(
    describedText(
      'OpenAPI 3.0 or 3.1 document, JSON or YAML, whose paths are below `url`: policies may then name its operations and speak of typed path parameters.',
    ),
  ),
  credential,
  caFile: v.optional(
    describedText(
      'PEM file of the authority that signs the upstream, instead of the public web PKI.',
    ),
  ),
  allowPrivateAddresses: flag(
    "Whether the upstream's address may be loopback, link-local or private.",
  ),
  unsafeAllowSetCookie: flag(
    'Whether `Set-Cookie` of the upstream may reach the agent: a cookie is a credential that outlives the task.',
  ),
  connectTimeout: duration('5s', { min: 100, max: minute }),
  headersTimeout: duration('5m', {
    min: 100,
    max: hour,
    about: 'From the whole request sent to the head of the answer.',
  }),
  maxConnections: count(64, { min: 1, max: 1024 }),
})

const unsafeObserveUntil = v.exactOptional(observeUntil('on this route'))

export const route = v.union(
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
      unsafeObserveUntil,
    }),
    v.strictObject({
      /** Exact authority of the Host field: `github.localhost:15080`. */
      host: v.pipe(v.string(), v.regex(/^[a-z0-9.-]+(:\d{1,5})?$/, 'Expected a host or host:port')),
      upstream: name,
      unsafeObserveUntil,
    }),
  ],
  'Expected { prefix, upstream } or { host, upstream }',
)
