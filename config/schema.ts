/**
 * Every setting of `chaperone.yaml`: unit, default and bound in one place.
 * Durations are text with a unit (`250ms`, `5m`) and become milliseconds; sizes (`16KiB`) become bytes.
 * Secrets never stand here: a secret is `{ file: path }` and is re-read when the file changes.
 */
import * as v from 'valibot'
import {
  byteSize,
  count,
  describedText,
  duration,
  hour,
  httpsUrl,
  httpUrl,
  minute,
  observeUntil,
  second,
  sensitivity,
  secret,
  text,
  trustDomain,
  txn,
} from './setting.ts'
import { listen } from './listen-schema.ts'
import { preset } from './preset-schema.ts'
import { operator, revocation } from './revocation-schema.ts'
import { route, upstream } from './upstream-schema.ts'

/** The configuration after defaults: what the rest of the program sees. */
export type Config = v.InferOutput<typeof configSchema>
export type UpstreamConfig = Config['upstreams'][number]
export type RouteConfig = Config['routes'][number]
export type CredentialConfig = UpstreamConfig['credential']
export type ApproverConfig = Config['approvers'][number]
export type DelegationConfig = NonNullable<Config['delegation']>
export type OperatorConfig = Config['operators'][number]
export type ListenTlsConfig = NonNullable<Config['listen']['tls']>
export type TrustBundleConfig = Config['identity']['trustBundles'][number]
export type RedisConfig = Extract<Config['revocation'], { source: 'redis' }>['redis']

const trustBundle = v.union(
  [
    v.strictObject({ trustDomain, file: text }),
    v.strictObject({
      trustDomain,
      url: httpsUrl,
      refresh: duration('5m', {
        min: 10 * second,
        max: hour,
        about:
          'How often to ask again; a `spiffe_refresh_hint` in the bundle wins, clamped to 10s..1h.',
      }),
      caFile: v.optional(
        describedText(
          'PEM file of the authority that signs the endpoint, instead of the public web PKI.',
        ),
      ),
    }),
  ],
  'Expected { trustDomain, file } or { trustDomain, url }',
)

const identity = v.strictObject({
  trustBundles: v.pipe(v.array(trustBundle), v.minLength(1, 'Expected at least one trust bundle')),
  clockSkew: duration('5s', {
    min: 0,
    max: minute,
    about: 'The one leeway for every token time check.',
  }),
  maxSvidTtl: duration('24h', {
    min: minute,
    max: 24 * hour,
    about: 'A JWT-SVID whose `exp` lies further ahead than this is refused.',
  }),
  maxSvidBytes: byteSize('8KiB', {
    min: 1024,
    max: 16_384,
    about: 'A JWT-SVID of more bytes is refused before it is parsed.',
  }),
  maxAudiences: count(4, {
    min: 1,
    max: 16,
    about:
      'The most `aud` values that a JWT-SVID may have: every other audience could replay it here.',
  }),
  maxBundleStaleness: duration('24h', {
    min: minute,
    max: 7 * 24 * hour,
    about:
      'The last good bundle stays in use this long while its source is down; then its domain is refused.',
  }),
})

const approver = v.strictObject({
  iss: describedText('The approver authority, exactly as grants name it in `iss`.'),
  jwks: describedText(
    "JWK Set file with the authority's public keys; each key needs `kid` and `alg`.",
  ),
  maxTtl: duration('8h', {
    min: second,
    max: 24 * hour,
    about: 'A grant may not live longer than this.',
  }),
  maxSensitivity: v.optional(
    v.pipe(sensitivity, v.description('The highest sensitivity that this approver may sign.')),
    'internal',
  ),
  purposes: v.optional(
    v.pipe(
      v.array(text),
      v.description(
        'Purposes that this approver may sign. Absent: every purpose of `grants.purposes`.',
      ),
    ),
  ),
  locations: v.optional(
    v.pipe(
      v.array(text),
      v.description(
        'Locations that this approver may sign, exact or `https://*.example.org`. Absent: every location.',
      ),
    ),
  ),
})

const delegation = v.strictObject({
  iss: describedText(
    'The delegation authority, exactly as grants name it in `iss`. It signs grants of sub-agents alone, never a root.',
  ),
  jwks: describedText(
    "JWK Set file with the authority's public keys; each key needs `kid` and `alg`. None may be a key of an approver.",
  ),
  maxTtl: duration('1h', {
    min: second,
    max: 24 * hour,
    about: 'A grant that it signs may not live longer than this.',
  }),
})

const grants = v.strictObject({
  maxTtl: duration('8h', {
    min: second,
    max: 24 * hour,
    about: 'No grant may live longer than this, whoever signs.',
  }),
  purposes: v.optional(
    v.pipe(
      v.array(text),
      v.description('The vocabulary of purposes. Absent: every well-formed purpose.'),
    ),
  ),
  file: v.optional(
    describedText(
      'A file that holds one compact grant: the one task of this pod. Re-read on change.',
    ),
  ),
})

export const configSchema = v.strictObject({
  version: v.literal(1, 'Expected 1'),
  /** The deployment's trust domain: names the Redis keys and the default audience. */
  trustDomain,
  audience: v.optional(
    describedText(
      'What `aud` of an SVID and of a grant must name. Default: `spiffe://<trustDomain>/chaperone`.',
    ),
  ),
  listen: v.optional(listen, {}),
  identity,
  approvers: v.pipe(v.array(approver), v.minLength(1, 'Expected at least one approver')),
  /** Absent: only approvers sign the grants of sub-agents. */
  delegation: v.optional(delegation),
  operators: v.optional(
    v.pipe(
      v.array(operator),
      v.maxLength(64),
      v.description(
        'Who may lift a revocation, pause or quarantine before it expires. Absent: nobody. What an operator lifted comes back in force when it is taken out of this list.',
      ),
    ),
    [],
  ),
  grants: v.optional(grants, {}),
  policy: v.optional(
    v.strictObject({
      directory: v.optional(
        describedText(
          'Directory of `*.cedar` files, added to the shipped system policies. Absent: the shipped default policy.',
        ),
      ),
      shadow: v.optional(
        describedText(
          'Directory of `*.cedar` files that are decided beside those in force and never enforced. Absent: those in force with their `@mode("shadow")` policies, if there are any.',
        ),
      ),
      maxShadowPerSecond: count(100, {
        min: 0,
        max: 100_000,
        about:
          'The most questions to the shadow policies in a second; what is beyond is counted as skipped.',
      }),
      presets: v.optional(
        v.pipe(
          v.array(preset),
          v.maxLength(256, 'Expected at most 256 presets'),
          v.description(
            'Rules without Cedar, beside those of `directory`. With one, the shipped default policy is not loaded.',
          ),
        ),
        [],
      ),
      unsafeObserveTasks: v.optional(
        v.pipe(
          v.array(v.strictObject({ task: txn, until: observeUntil('to this task') })),
          v.maxLength(64, 'Expected at most 64 tasks'),
          v.description('Tasks to which the policies are tried only, each until its end.'),
        ),
        [],
      ),
      tests: v.optional(
        describedText(
          'Directory of `*.test.yaml` files: policies of which a case does not hold are not taken up.',
        ),
      ),
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
      sink: v.optional(
        describedText('`stdout`, or the path of a file that is appended to.'),
        'stdout',
      ),
      writeTimeout: duration('2s', {
        min: 10,
        max: minute,
        about: 'How long a record may wait for the sink before the request is refused.',
      }),
      maxBacklog: count(10_000, {
        min: 1,
        max: 1_000_000,
        about: 'The most records that wait for the sink; then requests are refused.',
      }),
      onFailure: v.optional(
        v.pipe(
          v.picklist(['refuse', 'unsafe-continue']),
          v.description(
            'What becomes of requests while the sink takes no records: they are refused, or they go on while `spool` keeps their records.',
          ),
        ),
        'refuse',
      ),
      spool: v.optional(
        v.strictObject({
          file: describedText(
            'File on another disk for what the sink does not take; of one process at a time. Kept until the sink has it, also over a restart.',
          ),
          maxBytes: byteSize('16MiB', {
            min: 64 * 1024,
            max: 64 * 1024 * 1024,
            about: 'Past this size requests are refused until the sink has taken all of it.',
          }),
        }),
      ),
      checkpoint: v.optional(
        v.strictObject({
          /** Private JWK Set file; its first key (ES256 or EdDSA) signs. */
          keys: secret,
          every: duration('1m', {
            min: second,
            max: hour,
            about: 'How often a signed checkpoint is put on record while the audit grows.',
          }),
        }),
      ),
    }),
    {},
  ),
  limits: v.optional(
    v.strictObject({
      maxHeadBytes: byteSize('16KiB', { min: 1024, max: 65_536 }),
      headTimeout: duration('10s', { min: second, max: minute }),
      bodyGapTimeout: duration('1m', {
        min: second,
        max: hour,
        about: 'The longest silence between two pieces of a request body.',
      }),
      answerGapTimeout: duration('1m', {
        min: second,
        max: hour,
        about:
          'How long an agent may leave what was written for it unread; then its connection is reset.',
      }),
      maxConnections: count(1024, { min: 1, max: 65_536 }),
      maxExchanges: count(4096, {
        min: 1,
        max: 1_000_000,
        about: 'The most requests and streams in flight.',
      }),
      maxMcpBytes: byteSize('256KiB', {
        min: 1024,
        max: 4 * 1024 * 1024,
        about: 'An MCP message of more bytes is refused: it is judged whole or not at all.',
      }),
      maxMcpDepth: count(16, { min: 2, max: 64 }),
    }),
    {},
  ),
  shutdown: v.optional(
    v.strictObject({
      drain: duration('20s', {
        min: 0,
        max: 10 * minute,
        about: 'From SIGTERM until live streams are cut.',
      }),
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
