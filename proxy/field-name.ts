/** What the proxy goes by when it meets a field of this name. */
export interface FieldName {
  readonly lower: string
  /** CGI and WSGI read `X_Api_Key` and `X-Api-Key` as one name: lower case, and `_` as `-`. */
  readonly folded: string
  /** A token of RFC 9110 section 5.6.2, of at most 128 characters. */
  readonly isToken: boolean
  /** It speaks of identity, credential or task: the proxy reads or writes it, the agent never sends it on. */
  readonly isOwned: boolean
  /** RFC 9110 section 7.6.1, and `Expect`: we answered it. */
  readonly isHopByHop: boolean
  /** What an answer may not say to the agent: `alt-svc` and HSTS would lead it past the proxy. */
  readonly isWithheld: boolean
  readonly isCookie: boolean
}

/** Worked out once for each spelling: the same names come with every request. */
export function fieldName(name: string): FieldName {
  const known = names.get(name)
  if (known) return known
  const read = readName(name)
  if (name.length > maxKeptLength) return read
  // An agent that asks with ever new names makes its own requests slower, no more.
  if (names.size >= maxKept) names.clear()
  names.set(name, read)
  return read
}

const names = new Map<string, FieldName>()
const maxKept = 1024
const maxKeptLength = 64

function readName(name: string): FieldName {
  const lower = name.toLowerCase()
  const folded = lower.replaceAll('_', '-')
  return {
    lower,
    folded,
    isToken: tokenForm.test(name),
    isOwned: owned.has(folded) || ownedPrefixes.some((prefix) => folded.startsWith(prefix)),
    isHopByHop: hopByHop.has(folded),
    isWithheld: withheld.has(folded) || /^(?:proxy|chaperone)-/.test(folded),
    isCookie: folded === 'set-cookie' || folded === 'set-cookie2',
  }
}

const tokenForm = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$/

const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'expect',
  'http2-settings',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

const owned: ReadonlySet<string> = new Set([
  'host',
  'authorization',
  'cookie',
  'cookie2',
  'api-key',
  'x-api-key',
  'x-access-token',
  'x-auth-token',
  'x-goog-api-key',
  'x-vault-token',
  'x-functions-key',
  'ocp-apim-subscription-key',
  'private-token',
  'job-token',
  'dpop',
  'txn-token',
  'workload-identity-token',
  'workload-proof-token',
  'signature',
  'signature-input',
  'signature-key',
  'task-grant',
  'task-grant-chain',
  'task-id',
  'task-approval',
  'action-approval',
  'forwarded',
  'via',
  'x-real-ip',
  'true-client-ip',
  'x-cluster-client-ip',
  'client-cert',
  'client-cert-chain',
  'remote-user',
  'x-remote-user',
  'x-rewrite-url',
  'x-http-method',
  'x-http-method-override',
  'x-method-override',
])

const ownedPrefixes = [
  'proxy-',
  'chaperone-',
  'ssl-client-',
  'x-amz-',
  'x-client-cert',
  'x-envoy-',
  'x-forwarded-',
  'x-original-',
  'x-spiffe-',
  'x-user',
] as const

const withheld: ReadonlySet<string> = new Set([
  'alt-svc',
  'authentication-info',
  'dpop-nonce',
  'strict-transport-security',
  'www-authenticate',
  'x-should-retry',
])
