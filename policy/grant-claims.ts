import * as v from 'valibot'
import { canonicalOrigin, canonicalUrl, type Scheme } from './location.ts'
import { isPathPattern } from './path-pattern.ts'
import { isSpiffePattern, parseSpiffeId } from './spiffe-id.ts'
import { sensitivities } from './types.ts'

/** What an approver signs, as it stands in the JSON. Times are seconds. */
export type GrantClaims = v.InferInput<typeof grantClaims>

/** The same after reading: locations in canonical form. */
export type ReadGrantClaims = v.InferOutput<typeof grantClaims>

export type GrantClaimsResult =
  | { readonly ok: true; readonly claims: ReadGrantClaims }
  /** `reason` names the claim, and holds nothing of its value. */
  | { readonly ok: false; readonly reason: string }

/** `typ` of a grant, compared exactly: other kinds of token never pass for one, in any spelling. */
export const grantTyp = 'task-grant+jwt'

/** Reads the claims of a grant. The schema is closed: to ignore a claim might be to ignore a limit. */
export function parseGrantClaims(payload: unknown): GrantClaimsResult {
  if (typeof payload === 'object' && payload !== null) {
    const unsupported = unsupportedClaims.find((name) => name in payload)
    if (unsupported !== undefined) {
      const reason = `claim ${unsupported}: cannot be enforced by this version, so the grant is refused`
      return { ok: false, reason }
    }
  }
  const result = v.safeParse(grantClaims, payload, { abortEarly: true })
  if (result.success) return { ok: true, claims: result.output }
  return { ok: false, reason: describe(result.issues[0]) }
}

/** Constraints that the format has and that nothing here enforces yet. Refused by name, so that the reason is clear. */
const unsupportedClaims = ['limits', 'cnf', 'stepup', 'use', 'agent'] as const

const maxListed = 64
/** DL-1: a chain has at most 8 links, and the grant itself is one. */
const maxAncestors = 7

function textThat(check: (text: string) => boolean, message: string) {
  return v.pipe(v.string(), v.check(check, message))
}

function listOf<const TItem extends v.GenericSchema>(item: TItem) {
  return v.pipe(v.array(item), v.maxLength(maxListed, `has more than ${maxListed} entries`))
}

/** Text that becomes its canonical form, or is refused. */
function canonicalText(read: (text: string) => string | undefined, message: string) {
  return v.pipe(
    v.string(),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const canonical = read(dataset.value)
      if (canonical !== undefined) return canonical
      addIssue({ message })
      return NEVER
    }),
  )
}

function origin(schemes: readonly Scheme[], message: string) {
  return canonicalText((text) => canonicalOrigin(text, schemes), message)
}

const identifier = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9._~-]{16,128}$/, 'is not 16 to 128 characters of A-Z a-z 0-9 . _ ~ -'),
)
/** Also a path segment (`/t/<txn>/`), so dots alone are none. */
const task = v.pipe(
  v.string(),
  v.regex(
    /^(?!\.{1,2}$)[A-Za-z0-9._~-]{1,128}$/,
    'is not 1 to 128 characters of A-Z a-z 0-9 . _ ~ -',
  ),
)
const digest = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9_-]{43}$/, 'is not a SHA-256 digest in base64url'),
)
const seconds = v.pipe(v.number(), v.safeInteger('is not an integer'), v.minValue(0, 'is negative'))
const workload = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const id = parseSpiffeId(dataset.value)
    if (id !== undefined) return id
    addIssue({ message: 'is not the SPIFFE ID of a workload' })
    return NEVER
  }),
)
/** Visible characters: these names reach audit records and terminals. */
const name = v.pipe(
  v.string(),
  v.regex(/^[\x21-\x7e]{1,512}$/, 'is not 1 to 512 visible characters'),
)
const displayText = v.pipe(
  v.string(),
  v.maxBytes(1024, 'is longer than 1024 bytes'),
  v.check(
    (text) => !/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u.test(text),
    'has control characters',
  ),
)
const paths = listOf(
  textThat(isPathPattern, 'is not a path pattern: "*" is a whole segment, "**" the last one'),
)

const scalar = v.union([
  v.pipe(v.string(), v.maxLength(1024, 'is too long')),
  v.number(),
  v.boolean(),
])
const argumentConstraint = v.pipe(
  v.strictObject({
    enum: v.exactOptional(listOf(scalar)),
    prefix: v.exactOptional(v.pipe(v.string(), v.maxLength(1024, 'is too long'))),
    max: v.exactOptional(v.number()),
  }),
  v.check((constraint) => Object.keys(constraint).length > 0, 'constrains nothing'),
)

const httpApi = v.strictObject({
  type: v.literal('http_api'),
  locations: listOf(
    origin(['https', 'http'], 'is not an origin such as https://host or https://*.example.org'),
  ),
  actions: listOf(v.pipe(v.string(), v.regex(/^[A-Z]{1,32}$/, 'is not a method in upper case'))),
  paths,
  query: v.exactOptional(v.picklist(['allow', 'deny'])),
})
const mcpServer = v.strictObject({
  type: v.literal('mcp_server'),
  locations: listOf(canonicalText(canonicalUrl, 'is not a URL such as https://host/mcp')),
  tools: listOf(
    v.pipe(
      v.string(),
      v.regex(/^[^*\p{Cc}]{0,255}\*?$/u, 'is not a name, or a name with "*" at the end'),
    ),
  ),
  args: v.exactOptional(
    v.pipe(
      v.record(v.string(), argumentConstraint),
      v.maxEntries(maxListed, `has more than ${maxListed} entries`),
    ),
  ),
})
const webSocket = v.strictObject({
  type: v.literal('ws'),
  locations: listOf(origin(['wss', 'ws'], 'is not an origin such as wss://host')),
  paths,
})

const grantClaims = v.strictObject({
  iss: name,
  sub: workload,
  aud: name,
  jti: identifier,
  txn: task,
  iat: seconds,
  nbf: v.exactOptional(seconds),
  exp: seconds,
  purpose: v.pipe(v.string(), v.regex(/^[a-z0-9._-]{1,64}$/, 'is not a purpose code')),
  purpose_text: v.exactOptional(displayText),
  sensitivity: v.picklist(sensitivities),
  authorization_details: v.pipe(
    v.array(v.variant('type', [httpApi, mcpServer, webSocket])),
    v.minLength(1, 'is empty'),
    v.maxLength(maxListed, `has more than ${maxListed} entries`),
  ),
  obo: v.exactOptional(v.strictObject({ iss: name, sub: name })),
  delegation: v.exactOptional(
    v.strictObject({
      max_depth: v.pipe(
        v.number(),
        v.safeInteger('is not an integer'),
        v.minValue(0, 'is negative'),
        v.maxValue(8, 'is more than 8'),
      ),
      to: listOf(textThat(isSpiffePattern, 'is not a SPIFFE ID pattern')),
      issuers: v.exactOptional(listOf(name)),
    }),
  ),
  prf: v.exactOptional(v.strictObject({ jti: identifier, iss: name, s256: digest })),
  anc: v.exactOptional(
    v.pipe(
      v.array(v.strictObject({ jti: identifier, txn: task, sub: workload })),
      v.minLength(1, 'is empty'),
      v.maxLength(maxAncestors, `has more than ${maxAncestors} entries`),
    ),
  ),
})

/** Member names of the format: only these may stand in a reason, for any other name is the sender's own text. */
const knownNames: ReadonlySet<unknown> = new Set([
  ...Object.keys(grantClaims.entries),
  ...[httpApi, mcpServer, webSocket].flatMap((entry) => Object.keys(entry.entries)),
  'max_depth',
  'to',
  'issuers',
  's256',
  'enum',
  'prefix',
  'max',
])

function describe(issue: v.BaseIssue<unknown>): string {
  const path = (issue.path ?? []).map(({ key }) => {
    if (typeof key === 'number') return `[${key}]`
    return knownNames.has(key) ? `.${String(key)}` : '.?'
  })
  const where = path.join('').replace(/^\./, '')
  // Messages of validations are ours; those of the library may quote the value.
  if (issue.kind !== 'schema') return `claim ${where}: ${issue.message}`
  if (issue.expected === 'never') return `claim ${where}: is not known`
  return `claim ${where}: is missing or not of its type`
}
