import { createHmac, sign } from 'node:crypto'
import { expect, test } from 'vitest'
import { bearerToken } from '../../identity/bearer.ts'
import { verifyJwtSvid } from '../../identity/jwt-svid.ts'
import { parseTrustBundle, type TrustBundle } from '../../identity/trust-bundle.ts'
import type { TrustBundleLookup } from '../../identity/trust-bundles.ts'
import { createApproverRegistry, parseApproverKeys } from '../../policy/approver.ts'
import { isDenial } from '../../policy/denial.ts'
import { verifyGrant } from '../../policy/grant.ts'
import type { DenialCode } from '../../policy/types.ts'
import {
  base64url,
  bundleDocument,
  grantClaims,
  jwksDocument,
  names,
  publicPem,
  signatureOf,
  signGrant,
  signingKey,
  signRaw,
  signSvid,
  svidClaims,
  type Part,
  type SigningKey,
} from '../kit/tokens.ts'

/**
 * The known attacks on JSON Web Tokens, each against the verifier that it is aimed at. Every token is validly signed by
 * a trusted key unless its row says otherwise, so that only the check under test can refuse it.
 */

const nowMs = Date.UTC(2026, 10, 24, 12)
const now = nowMs / 1000
const skew = 5

const key = await signingKey('ES256', { kid: 'k1' })
const rsa = await signingKey('RS256', { kid: 'r1' })
const foreign = await signingKey('ES256', { kid: 'k1' })
const stranger = await signingKey('ES256', { kid: 'k1' })
const owner = await signingKey('ES256', { kid: 'o1' })

const bundles = new Map<string, TrustBundle>([
  [names.trustDomain, bundleOf([key, rsa])],
  ['other.org', bundleOf([foreign])],
])
const approvers = createApproverRegistry(
  [{ iss: names.approver, jwks: 'unused', maxTtl: 8 * 3_600_000, maxSensitivity: 'internal' }],
  new Map([[names.approver, parseApproverKeys(JSON.parse(jwksDocument([owner])))]]),
)

function bundleOf(keys: readonly SigningKey[]): TrustBundle {
  const result = parseTrustBundle(Buffer.from(bundleDocument(keys)))
  if (!result.ok) throw new Error(result.reason)
  return result.bundle
}

function find(trustDomain: string): TrustBundleLookup {
  const bundle = bundles.get(trustDomain)
  return bundle ? { state: 'usable', bundle, generation: 1 } : { state: 'unknown' }
}

/** `accepted`, or code and detail of the refusal. */
async function outcome(target: Target, text: string): Promise<string> {
  const result = await verify(target, text)
  return isDenial(result) ? `${result.code}: ${result.detail}` : 'accepted'
}

type Target = 'svid' | 'grant' | 'header'

async function verify(target: Target, text: string): Promise<object> {
  if (target === 'grant') {
    return verifyGrant(text, {
      approvers,
      audience: names.audience,
      clockSkewMs: skew * 1000,
      maxTtlMs: 8 * 3_600_000,
      nowMs,
    })
  }
  const bearer = target === 'header' ? bearerToken(['authorization', text]) : { token: text }
  if (isDenial(bearer)) return bearer
  return verifyJwtSvid(bearer.token, {
    audience: names.audience,
    bundles: { find },
    clockSkewMs: skew * 1000,
    maxSvidTtlMs: 24 * 3_600_000,
    maxSvidBytes: 8192,
    maxAudiences: 4,
    nowMs,
  })
}

interface Changes {
  readonly header?: Readonly<Record<string, unknown>>
  readonly claims?: Readonly<Record<string, unknown>>
  readonly by?: SigningKey
}

function svid({ by = key, ...changes }: Changes = {}): string {
  return signSvid(by, { ...changes, nowMs })
}

function grant({ by = owner, ...changes }: Changes = {}): string {
  return signGrant(by, { ...changes, nowMs })
}

/** An SVID over exactly these bytes. */
function raw(parts: { readonly header?: Part; readonly payload?: Part }): string {
  const header = parts.header ?? { alg: 'ES256', kid: 'k1', typ: 'JWT' }
  return signRaw(key, { header, payload: parts.payload ?? svidClaims(nowMs) })
}

/** An SVID whose signature is what `make` says instead. */
function resigned(make: (signature: Buffer, input: string) => Part): string {
  const input = svid().split('.').slice(0, 2).join('.')
  return `${input}.${base64url(make(signatureOf(key, input), input))}`
}

function hmacSigned(secret: string): string {
  const input = `${base64url({ alg: 'HS256', kid: 'k1', typ: 'JWT' })}.${base64url(svidClaims(nowMs))}`
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
}

/** The claims as text, with one member written as the test wants it. */
function payloadWith(member: string): string {
  return `${JSON.stringify(svidClaims(nowMs)).slice(0, -1)},${member}}`
}

/** The claims as text, with `exp` written as the test wants it. */
function payloadWithExp(exp: string): string {
  return JSON.stringify({ ...svidClaims(nowMs), exp: 'EXP' }).replace('"EXP"', exp)
}

const order = BigInt('0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551')

function scalar(value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(64, '0'), 'hex')
}

function scalars(r: bigint, s: bigint): Buffer {
  return Buffer.concat([scalar(r), scalar(s)])
}

/** The other valid signature over the same text: (r, n - s). */
function twin(signature: Buffer): Buffer {
  const s = BigInt(`0x${signature.toString('hex', 32)}`)
  return Buffer.concat([signature.subarray(0, 32), scalar(order - s)])
}

function der(_: Buffer, input: string): Buffer {
  return sign('sha256', Buffer.from(input), key.privateKey)
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

/** The same bytes with another last character: 64 bytes leave four bits of it unused. */
function otherLastCharacter(token: string): string {
  const value = alphabet.indexOf(token.at(-1) ?? '')
  return token.slice(0, -1) + alphabet[value ^ 1]
}

function deep(levels: number): string {
  return payloadWith(`"x":${'['.repeat(levels)}${']'.repeat(levels)}`)
}

const bad = {
  extraHeader: 'identity-invalid: header: has more members than alg, kid and typ',
  alg: 'identity-invalid: header: alg is none of JWT-SVID',
  keyAlg: 'identity-invalid: header: alg is not one of its key',
  kidMiss: 'identity-invalid: header: kid is not in the trust bundle',
  kidText: 'identity-invalid: header: kid is not text',
  typ: 'identity-invalid: header: typ is not JWT or JOSE',
  signature: 'identity-invalid: its signature does not verify',
  base64: 'identity-invalid: the token is not canonical base64url',
  parts: 'identity-invalid: the token has not three parts',
  long: 'identity-invalid: the token is longer than 8192 bytes',
  expMissing: 'identity-invalid: claim exp: is missing or not an integer',
  expFar: 'identity-invalid: claim exp: is too far ahead',
  audText: 'identity-invalid: claim aud: is not text or texts',
  audOther: 'identity-invalid: claim aud: is not this proxy',
  sub: 'identity-invalid: claim sub: is not the SPIFFE ID of a workload',
  headerTwice: 'identity-invalid: header: a member name stands twice',
  payloadTwice: 'identity-invalid: payload: a member name stands twice',
  notObject: 'identity-invalid: payload: not an object',
  oneToken: 'identity-invalid: the Authorization field holds no single token',
  grantTyp: 'task-grant-invalid: header: typ is not "task-grant+jwt"',
  grantHeader: 'task-grant-invalid: header: has more members than alg, kid and typ',
} as const

test.each<[id: string, what: string, target: Target, token: string, expected: string]>([
  ['-', 'a valid SVID', 'svid', svid(), 'accepted'],
  ['-', 'a valid SVID in a field', 'header', `Bearer ${svid()}`, 'accepted'],
  ['-', 'a valid SVID by RSA', 'svid', svid({ by: rsa }), 'accepted'],
  ['-', 'a valid grant', 'grant', grant(), 'accepted'],

  ['A1', 'alg none', 'svid', raw({ header: { alg: 'none', kid: 'k1' } }), bad.alg],
  ['A1', 'alg nOnE', 'svid', raw({ header: { alg: 'nOnE', kid: 'k1' } }), bad.alg],
  ['A1', 'alg NONE', 'svid', raw({ header: { alg: 'NONE', kid: 'k1' } }), bad.alg],
  ['A1', 'no signature', 'svid', svid().replace(/[^.]+$/, ''), bad.parts],
  [
    'A1',
    'alg none on a grant',
    'grant',
    grant({ header: { alg: 'none' } }),
    'task-grant-invalid: its algorithm is not that of the key',
  ],
  ['A2', 'HS256 with the PEM', 'svid', hmacSigned(publicPem(key)), bad.alg],
  ['A2', 'HS256 with the JWK', 'svid', hmacSigned(JSON.stringify(key.publicJwk)), bad.alg],
  ['A3', 'ES384 on a P-256 key', 'svid', svid({ header: { alg: 'ES384' } }), bad.keyAlg],
  ['A3', 'RS256 on an EC key', 'svid', svid({ header: { alg: 'RS256' } }), bad.keyAlg],
  ['A3', 'ES256 on an RSA key', 'svid', svid({ by: rsa, header: { alg: 'ES256' } }), bad.keyAlg],
  [
    'A3',
    'PS256 where the key says RS256',
    'svid',
    svid({ by: rsa, header: { alg: 'PS256' } }),
    bad.keyAlg,
  ],
  ['A3', 'alg in lower case', 'svid', svid({ header: { alg: 'es256' } }), bad.alg],
  ['A3', 'EdDSA', 'svid', svid({ header: { alg: 'EdDSA' } }), bad.alg],
  [
    'A4',
    'an embedded jwk of a stranger',
    'svid',
    svid({ by: stranger, header: { jwk: stranger.publicJwk } }),
    bad.extraHeader,
  ],
  ['A4', 'jku', 'svid', svid({ header: { jku: 'https://evil.example/keys' } }), bad.extraHeader],
  ['A4', 'x5u', 'svid', svid({ header: { x5u: 'https://evil.example/cert' } }), bad.extraHeader],
  ['A4', 'x5c', 'svid', svid({ header: { x5c: ['AAAA'] } }), bad.extraHeader],
  ['A4', 'jwk on a grant', 'grant', grant({ header: { jwk: owner.publicJwk } }), bad.grantHeader],
  ['A5', 'kid as a path', 'svid', svid({ header: { kid: '../../dev/null' } }), bad.kidMiss],
  ['A5', 'kid as SQL', 'svid', svid({ header: { kid: "k1' OR '1'='1" } }), bad.kidMiss],
  ['A5', 'kid __proto__', 'svid', svid({ header: { kid: '__proto__' } }), bad.kidMiss],
  ['A5', 'kid constructor', 'svid', svid({ header: { kid: 'constructor' } }), bad.kidMiss],
  ['A5', 'kid of 300 bytes', 'svid', svid({ header: { kid: 'k'.repeat(300) } }), bad.kidText],
  ['A5', 'kid of 64 KB', 'svid', svid({ header: { kid: 'k'.repeat(65_536) } }), bad.long],
  ['A5', 'kid as a number', 'svid', svid({ header: { kid: 1 } }), bad.kidText],
  ['A5', 'kid empty', 'svid', svid({ header: { kid: '' } }), bad.kidText],
  ['A5', 'kid null', 'svid', svid({ header: { kid: null } }), bad.kidText],
  ['A6', 'no kid', 'svid', svid({ header: { kid: undefined } }), 'accepted'],
  [
    'A6',
    'no kid, by a stranger',
    'svid',
    svid({ by: stranger, header: { kid: undefined } }),
    bad.signature,
  ],
  [
    'A6',
    'no kid on a grant',
    'grant',
    grant({ header: { kid: undefined } }),
    'task-grant-invalid: header: kid is not text',
  ],
  [
    'A7',
    'crit b64=false',
    'svid',
    svid({ header: { crit: ['b64'], b64: false } }),
    bad.extraHeader,
  ],
  ['A8', 'crit b64=true', 'svid', svid({ header: { crit: ['b64'], b64: true } }), bad.extraHeader],
  ['A8', 'b64=false without crit', 'svid', svid({ header: { b64: false } }), bad.extraHeader],
  ['A9', 'crit unknown', 'svid', svid({ header: { crit: ['exp'] } }), bad.extraHeader],
  ['A9', 'crit empty', 'svid', svid({ header: { crit: [] } }), bad.extraHeader],
  [
    'A10',
    'alg twice',
    'svid',
    raw({ header: '{"alg":"none","kid":"k1","alg":"ES256"}' }),
    bad.headerTwice,
  ],
  [
    'A10',
    'sub twice',
    'svid',
    raw({ payload: payloadWith(`"sub":"${names.agent}"`) }),
    bad.payloadTwice,
  ],
  [
    'A10',
    'sub twice, once escaped',
    'svid',
    raw({ payload: payloadWith(String.raw`"\u0073ub":"x"`) }),
    bad.payloadTwice,
  ],
  [
    'A10',
    'aud twice',
    'svid',
    raw({ payload: payloadWith(`"aud":"${names.audience}"`) }),
    bad.payloadTwice,
  ],
  [
    'A10',
    'a duplicate deep inside',
    'svid',
    raw({ payload: payloadWith('"x":{"a":1,"a":2}') }),
    bad.payloadTwice,
  ],
  [
    'A11',
    'exp 1e999',
    'svid',
    raw({ payload: payloadWithExp('1e999') }),
    'identity-invalid: payload: a number is not finite',
  ],
  ['A11', 'exp in milliseconds', 'svid', svid({ claims: { exp: nowMs + 60_000 } }), bad.expFar],
  ['A11', 'exp with a fraction', 'svid', svid({ claims: { exp: now + 60.5 } }), bad.expMissing],
  [
    'A11',
    'exp beyond 2^53',
    'svid',
    raw({ payload: payloadWithExp('9007199254740993') }),
    'identity-invalid: payload: an integer is beyond 2^53',
  ],
  ['A11', 'exp negative', 'svid', svid({ claims: { exp: -1 } }), bad.expMissing],
  ['A12', 'exp as text', 'svid', svid({ claims: { exp: String(now + 60) } }), bad.expMissing],
  ['A12', 'exp null', 'svid', svid({ claims: { exp: null } }), bad.expMissing],
  ['A12', 'exp missing', 'svid', svid({ claims: { exp: undefined } }), bad.expMissing],
  [
    'A12',
    'exp missing on a grant',
    'grant',
    grant({ claims: { exp: undefined } }),
    'task-grant-invalid: claim exp: is missing or not of its type',
  ],
  [
    'A13',
    'expired within the leeway',
    'svid',
    svid({ claims: { exp: now - skew + 1 } }),
    'accepted',
  ],
  [
    'A13',
    'expired beyond the leeway',
    'svid',
    svid({ claims: { exp: now - skew } }),
    'identity-invalid: claim exp: is past',
  ],
  ['A13', 'nbf within the leeway', 'svid', svid({ claims: { nbf: now + skew } }), 'accepted'],
  [
    'A13',
    'nbf beyond the leeway',
    'svid',
    svid({ claims: { nbf: now + skew + 1 } }),
    'identity-invalid: claim nbf: is in the future',
  ],
  [
    'A13',
    'iat in the future',
    'svid',
    svid({ claims: { iat: now + 1000 } }),
    'identity-invalid: claim iat: is in the future',
  ],
  [
    'A13',
    'nbf as text',
    'svid',
    svid({ claims: { nbf: '0' } }),
    'identity-invalid: claim nbf: is not an integer',
  ],
  [
    'A13',
    'iat null',
    'svid',
    svid({ claims: { iat: null } }),
    'identity-invalid: claim iat: is not an integer',
  ],
  ['A14', 'aud as text', 'svid', svid({ claims: { aud: names.audience } }), 'accepted'],
  ['A14', 'aud nested', 'svid', svid({ claims: { aud: [[names.audience]] } }), bad.audText],
  [
    'A14',
    'aud an object',
    'svid',
    svid({ claims: { aud: { [names.audience]: true } } }),
    bad.audText,
  ],
  ['A14', 'aud with a number', 'svid', svid({ claims: { aud: [names.audience, 1] } }), bad.audText],
  ['A14', 'aud missing', 'svid', svid({ claims: { aud: undefined } }), bad.audText],
  ['A14', 'aud empty', 'svid', svid({ claims: { aud: [] } }), bad.audOther],
  ['A14', 'aud empty text', 'svid', svid({ claims: { aud: '' } }), bad.audOther],
  [
    'A14',
    'aud of another',
    'svid',
    svid({ claims: { aud: ['spiffe://example.org/db'] } }),
    bad.audOther,
  ],
  [
    'A14',
    'aud a prefix',
    'svid',
    svid({ claims: { aud: names.audience.slice(0, -1) } }),
    bad.audOther,
  ],
  ['A14', 'aud a suffix', 'svid', svid({ claims: { aud: `${names.audience}/x` } }), bad.audOther],
  [
    'A14',
    'aud in upper case',
    'svid',
    svid({ claims: { aud: names.audience.toUpperCase() } }),
    bad.audOther,
  ],
  [
    'A14',
    'five audiences',
    'svid',
    svid({ claims: { aud: [names.audience, 'b', 'c', 'd', 'e'] } }),
    'identity-invalid: claim aud: has too many values',
  ],
  [
    'A14',
    'aud array on a grant',
    'grant',
    grant({ claims: { aud: [names.audience] } }),
    'task-grant-invalid: claim aud: is missing or not of its type',
  ],
  [
    'A14',
    'aud of another on a grant',
    'grant',
    grant({ claims: { aud: 'spiffe://example.org/x' } }),
    'task-grant-invalid: claim aud: is not this proxy',
  ],
  ['A15', 'WIT as SVID', 'svid', svid({ header: { typ: 'wit+jwt' } }), bad.typ],
  ['A15', 'access token as SVID', 'svid', svid({ header: { typ: 'at+jwt' } }), bad.typ],
  ['A15', 'grant as SVID', 'svid', grant({ by: key }), bad.typ],
  ['A15', 'ID token as SVID', 'svid', svid({ claims: { sub: 'user-1' } }), bad.sub],
  ['A15', 'SVID as grant', 'grant', svid({ by: owner }), bad.grantTyp],
  ['A15', 'grant claims with typ JWT', 'grant', grant({ header: { typ: 'JWT' } }), bad.grantTyp],
  [
    'A15',
    'sign-off as grant',
    'grant',
    grant({ header: { typ: 'task-approval+jwt' } }),
    bad.grantTyp,
  ],
  [
    'A15',
    'grant signed by an SVID authority',
    'grant',
    grant({ by: key }),
    'task-grant-invalid: its key is not one of this approver',
  ],
  ['A16', 'padding', 'svid', `${svid()}==`, bad.base64],
  ['A16', 'a trailing space', 'svid', `${svid()} `, bad.base64],
  ['A16', 'a newline inside', 'svid', svid().replace('.', '\n.'), bad.base64],
  ['A16', 'standard base64', 'svid', svid().replace(/.$/, '+'), bad.base64],
  ['A16', 'another last character', 'svid', otherLastCharacter(svid()), bad.base64],
  [
    'A16',
    'another last character on a grant',
    'grant',
    otherLastCharacter(grant()),
    'task-grant-invalid: the token is not canonical base64url',
  ],
  ['A17', 'the twin signature (r, n - s)', 'svid', resigned(twin), 'accepted'],
  ['A18', 'DER', 'svid', resigned(der), bad.signature],
  ['A18', '0/0', 'svid', resigned(() => scalars(0n, 0n)), bad.signature],
  [
    'A18',
    'r = 0',
    'svid',
    resigned((real) => Buffer.concat([scalar(0n), real.subarray(32)])),
    bad.signature,
  ],
  [
    'A18',
    's = 0',
    'svid',
    resigned((real) => Buffer.concat([real.subarray(0, 32), scalar(0n)])),
    bad.signature,
  ],
  ['A18', 'r = s = n', 'svid', resigned(() => scalars(order, order)), bad.signature],
  ['A18', 'r = s = n - 1', 'svid', resigned(() => scalars(order - 1n, order - 1n)), bad.signature],
  ['A18', '63 bytes', 'svid', resigned((real) => real.subarray(0, 63)), bad.signature],
  [
    'A18',
    '65 bytes',
    'svid',
    resigned((real) => Buffer.concat([real, Buffer.alloc(1)])),
    bad.signature,
  ],
  [
    'A19',
    'payload BOM',
    'svid',
    raw({ payload: `\ufeff${JSON.stringify(svidClaims(nowMs))}` }),
    'identity-invalid: payload: not JSON',
  ],
  [
    'A20',
    'payload UTF-16',
    'svid',
    raw({ payload: Buffer.from(JSON.stringify(svidClaims(nowMs)), 'utf16le') }),
    'identity-invalid: payload: not JSON',
  ],
  [
    'A20',
    'payload invalid UTF-8',
    'svid',
    raw({ payload: Uint8Array.of(0x7b, 0xff, 0x7d) }),
    'identity-invalid: payload: not UTF-8',
  ],
  ['A20', 'payload an array', 'svid', raw({ payload: [svidClaims(nowMs)] }), bad.notObject],
  ['A20', 'payload null', 'svid', raw({ payload: 'null' }), bad.notObject],
  ['A20', 'payload a number', 'svid', raw({ payload: '1' }), bad.notObject],
  [
    'A20',
    'header an array',
    'svid',
    raw({ header: '["ES256"]' }),
    'identity-invalid: header: not an object',
  ],
  [
    'A21',
    '__proto__ claim',
    'svid',
    raw({ payload: payloadWith('"__proto__":{"sub":"x"}') }),
    'identity-invalid: payload: a member is named like a prototype',
  ],
  [
    'A21',
    'unknown claim on a grant',
    'grant',
    grant({ claims: { scope: 'all' } }),
    'task-grant-invalid: claim ?: is not known',
  ],
  ['A22', '5 MB', 'svid', svid({ claims: { x: 'x'.repeat(5_000_000) } }), bad.long],
  [
    'A22',
    '9 KB on a grant',
    'grant',
    grant({ claims: { purpose_text: 'x'.repeat(9_000) } }),
    'task-grant-invalid: the token is longer than 8192 bytes',
  ],
  [
    'A23',
    '2 500 deep',
    'svid',
    raw({ payload: deep(2_500) }),
    'identity-invalid: payload: nested deeper than 16',
  ],
  ['A23', '200 000 deep', 'svid', raw({ payload: deep(200_000) }), bad.long],
  ['A26', 'a key of another domain', 'svid', svid({ by: foreign }), bad.signature],
  [
    'A26',
    'a subject of another domain',
    'svid',
    svid({ claims: { sub: 'spiffe://other.org/a' } }),
    bad.signature,
  ],
  [
    'A26',
    'a domain that nobody trusts',
    'svid',
    svid({ claims: { sub: 'spiffe://evil.org/a' } }),
    'identity-invalid: claim sub: its trust domain is not trusted',
  ],
  [
    'A26',
    'a domain in upper case',
    'svid',
    svid({ claims: { sub: 'spiffe://Example.org/a' } }),
    bad.sub,
  ],
  [
    'A26',
    'a domain without workload',
    'svid',
    svid({ claims: { sub: 'spiffe://example.org' } }),
    bad.sub,
  ],
  [
    'A26',
    'another issuer on a grant',
    'grant',
    grant({ claims: { iss: 'https://evil.example' } }),
    'task-grant-invalid: its issuer is not an approver',
  ],
  ['A27', 'JWE', 'svid', 'eyJhbGciOiJkaXIifQ..AAAA.AAAA.AAAA', bad.parts],
  ['A27', 'four parts', 'svid', `${svid()}.AAAA`, bad.parts],
  ['A27', 'zip', 'svid', svid({ header: { zip: 'DEF' } }), bad.extraHeader],
  [
    'A27',
    'PBES2 with a large p2c',
    'svid',
    svid({ header: { alg: 'PBES2-HS256+A128KW', p2c: 1e9 } }),
    bad.extraHeader,
  ],
  [
    'A28',
    'JSON serialization',
    'header',
    `Bearer {"payload":"AAAA","signature":"AAAA"}`,
    bad.parts,
  ],
  ['A28', 'JSON serialization with three dots', 'header', 'Bearer {"a":".","b":"."}', bad.base64],
  ['A29', 'typ in upper case', 'grant', grant({ header: { typ: 'TASK-GRANT+JWT' } }), bad.grantTyp],
  [
    'A29',
    'typ with application/',
    'grant',
    grant({ header: { typ: 'application/task-grant+jwt' } }),
    bad.grantTyp,
  ],
  ['A29', 'typ jwt in lower case', 'svid', svid({ header: { typ: 'jwt' } }), bad.typ],
  [
    'A30',
    'general JWS',
    'grant',
    JSON.stringify({ payload: base64url(grantClaims(nowMs)), signatures: [{}, {}] }),
    'task-grant-invalid: the token has not three parts',
  ],
  [
    'A32',
    'a parent without a digest',
    'grant',
    grant({ claims: { prf: { jti: 'grant-0000000000', iss: 'y', s256: 'z' } } }),
    'task-grant-invalid: claim prf.s256: is not a SHA-256 digest in base64url',
  ],
  [
    'A32',
    'ancestors without a parent',
    'grant',
    grant({ claims: { anc: [{ jti: 'grant-0000000000', txn: 'root', sub: names.agent }] } }),
    'task-grant-invalid: claims prf and anc: one without the other',
  ],
  ['-', 'two tokens in one field', 'header', `Bearer ${svid()}, Bearer ${svid()}`, bad.oneToken],
  [
    '-',
    'a changed payload',
    'svid',
    svid().replace(
      /\.[^.]+\./,
      `.${base64url({ ...svidClaims(nowMs), sub: 'spiffe://example.org/admin' })}.`,
    ),
    bad.signature,
  ],
  ['-', 'nothing', 'svid', '', bad.parts],
  ['-', 'only dots', 'svid', '..', bad.parts],
])('%s: %s, at the %s verifier', async (_id, _what, target, token, expected) => {
  expect(await outcome(target, token)).toBe(expected)
})

test('A17: the twin signature has the digest of the first', async () => {
  const token = svid()
  const [first, second] = await Promise.all([
    verify('svid', token),
    verify(
      'svid',
      token.replace(/[^.]+$/, (old) => base64url(twin(Buffer.from(old, 'base64url')))),
    ),
  ])
  expect(second).toStrictEqual(first)
})

test('A6: nine keys and no kid are refused without a try', async () => {
  const many = await Promise.all(
    Array.from({ length: 9 }, (_, index) => signingKey('ES256', { kid: `m${index}` })),
  )
  bundles.set('many.org', bundleOf(many))
  const claims = { sub: 'spiffe://many.org/a' }
  const [first] = many
  const token = svid({ header: { kid: undefined }, claims, ...(first && { by: first }) })
  expect(await outcome('svid', token)).toBe(
    'identity-invalid: header: kid is missing among many keys',
  )
  bundles.set('many.org', bundleOf(many.slice(0, 8)))
  expect(await outcome('svid', token)).toBe('accepted')
})

const small = await signingKey('RS256', { kid: 'small', modulusLength: 2048 }).then(
  (made) => made.publicJwk,
)
const first1024Bits = Buffer.from(small.n ?? '', 'base64url')
  .subarray(0, 128)
  .toString('base64url')

test.each<[id: string, what: string, document: string, expected: string]>([
  ['A24', 'kid twice', bundleDocument([key, stranger]), 'the bundle has one "kid" for two keys'],
  [
    'A24',
    'kid twice, one key unusable',
    bundleDocument([key, { ...small, kid: 'k1', e: 'AQ' }]),
    'the bundle has one "kid" for two keys',
  ],
  [
    'A25',
    'RSA 1024',
    bundleDocument([key, { ...small, n: first1024Bits }]),
    'keys[1]: its modulus is not 2048-8192 bit',
  ],
  ['A25', 'e = 1', bundleDocument([key, { ...small, e: 'AQ' }]), 'keys[1]: its exponent is weak'],
  ['A25', 'e = 3', bundleDocument([key, { ...small, e: 'Aw' }]), 'keys[1]: its exponent is weak'],
  [
    'A25',
    'e even',
    bundleDocument([key, { ...small, e: 'AQAC' }]),
    'keys[1]: its exponent is weak',
  ],
  [
    'A25',
    'a private key',
    bundleDocument([key, rsa.privateJwk]),
    'keys[1]: it is not a public key',
  ],
  [
    'A25',
    'a secret',
    bundleDocument([key, { kty: 'oct', kid: 'o', k: 'AAAA' }]),
    'keys[1]: it is not a public key',
  ],
  [
    'A25',
    'a point off the curve',
    bundleDocument([key, { ...stranger.publicJwk, kid: 'x', y: key.publicJwk.y ?? '' }]),
    'keys[1]: its material is not valid',
  ],
  [
    'A25',
    'alg of another type',
    bundleDocument([key, { ...small, alg: 'ES256' }]),
    'keys[1]: its alg does not fit its type',
  ],
  [
    'A25',
    'Ed25519',
    bundleDocument([key, (await signingKey('Ed25519', { kid: 'e' })).publicJwk]),
    'keys[1]: its algorithm is none of JWT-SVID',
  ],
])('%s: %s in a bundle', (_id, _what, document, expected) => {
  const result = parseTrustBundle(Buffer.from(document))
  const said = result.ok ? result.bundle.ignored.join() : result.reason
  expect(said).toBe(expected)
  // An unusable key takes nothing from the good one beside it.
  expect(result.ok ? [...result.bundle.keys.keys()] : ['k1']).toStrictEqual(['k1'])
})

test('no refusal says a byte of the token', async () => {
  const secretive = { 'sEcReT-name': 'sEcReT-value', limits: 'sEcReT' }
  const tokens = [
    svid({ claims: { sub: 'sEcReT' } }),
    svid({ header: { kid: 'sEcReT' } }),
    svid({ header: { alg: 'sEcReT' } }),
    svid({ claims: { aud: 'sEcReT', exp: 'sEcReT' } }),
    raw({ payload: '{"sEcReT":1,"sEcReT":2}' }),
    raw({ payload: 'sEcReT' }),
  ]
  const grants = Object.keys(grantClaims(nowMs)).map((name) =>
    grant({ claims: { [name]: 'sEcReT\n' } }),
  )
  const all = await Promise.all([
    ...tokens.map((token) => outcome('svid', token)),
    ...grants.map((token) => outcome('grant', token)),
    outcome('grant', grant({ claims: secretive })),
    outcome('grant', grant({ claims: { 'sEcReT-name': 1 } })),
    outcome('grant', grant({ claims: { authorization_details: [{ type: 'sEcReT' }] } })),
  ])
  expect(all.filter((text) => text === 'accepted' || text.includes('sEcReT'))).toStrictEqual([])
})

test('every refusal has the code of its verifier', () => {
  const codes: readonly DenialCode[] = ['identity-invalid', 'task-grant-invalid']
  expect(
    Object.values(bad).filter((text) => !codes.some((code) => text.startsWith(`${code}: `))),
  ).toStrictEqual([])
})
