import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import type { ApproverConfig } from '../../config/schema.ts'
import { createApproverRegistry, parseApproverKeys } from '../../policy/approver.ts'
import { isDenial } from '../../policy/denial.ts'
import {
  checkGrantHolder,
  grantChain,
  verifyGrant,
  type GrantClaims,
  type VerifyGrantOptions,
} from '../../policy/grant.ts'
import type { Agent, Denial, Grant, SpiffeId } from '../../policy/types.ts'
import { grantClaims, names, signGrant, signingKey } from '../kit/tokens.ts'

const nowMs = Date.UTC(2026, 10, 24, 12)
const now = nowMs / 1000
const key = await signingKey('ES256', { kid: 'k1' })
const stranger = await signingKey('ES256', { kid: 'k1' })

const approver: ApproverConfig = {
  iss: names.approver,
  jwks: 'unused',
  maxTtl: 4 * 3_600_000,
  maxSensitivity: 'confidential',
}

function optionsWith(
  ceilings: Partial<ApproverConfig> = {},
  more: Partial<VerifyGrantOptions> = {},
): VerifyGrantOptions {
  const keys = parseApproverKeys({ keys: [key.publicJwk] })
  return {
    approvers: createApproverRegistry(
      [{ ...approver, ...ceilings }],
      new Map([[approver.iss, keys]]),
    ),
    audience: names.audience,
    clockSkewMs: 5_000,
    maxTtlMs: 8 * 3_600_000,
    nowMs,
    ...more,
  }
}

type Claims = Partial<GrantClaims> | Readonly<Record<string, unknown>>

function verify(claims: Claims, options = optionsWith()): Promise<Grant | Denial> {
  return verifyGrant(signGrant(key, { claims, nowMs }), options)
}

async function outcome(claims: Claims, options = optionsWith()): Promise<string> {
  const result = await verify(claims, options)
  return isDenial(result) ? `${result.code}: ${result.detail}` : 'accepted'
}

async function grantOf(claims: Claims): Promise<Grant> {
  const result = await verify(claims)
  if (isDenial(result)) throw new Error(result.detail)
  return result
}

const httpApi = {
  type: 'http_api',
  locations: ['https://api.example.org'],
  actions: ['GET'],
  paths: ['/v1/**'],
}
const mcpServer = { type: 'mcp_server', locations: ['https://mcp.example.org/mcp'], tools: ['x'] }
const webSocket = { type: 'ws', locations: ['wss://ws.example.org'], paths: ['/live'] }

const lineage = {
  prf: { jti: 'grant-0000000000', iss: names.approver, s256: 'A'.repeat(43) },
  anc: [{ jti: 'grant-0000000000', txn: 'root', sub: names.agent }],
} as const

describe('verifyGrant()', () => {
  test('gives every claim that it read', async () => {
    const claims = {
      ...grantClaims(nowMs),
      nbf: now - 10,
      purpose_text: 'Prüfe die Rechnungen',
      authorization_details: [
        { ...httpApi, locations: ['https://api.example.org:443'], query: 'deny' },
        { ...mcpServer, args: { owner: { enum: ['a', 1, true], prefix: 'a' }, n: { max: 5 } } },
        webSocket,
      ],
      obo: { iss: 'https://login.example.org', sub: 'user-1' },
      delegation: { max_depth: 2, to: ['spiffe://example.org/agent/**'], issuers: ['https://x'] },
    }
    const compact = signGrant(key, { claims, nowMs })
    const signingInput = compact.split('.').slice(0, 2).join('.')
    expect(await verifyGrant(compact, optionsWith())).toEqual({
      approver: names.approver,
      kid: 'k1',
      jti: claims.jti,
      txn: claims.txn,
      agent: names.agent,
      audience: names.audience,
      issuedAtMs: nowMs,
      notBeforeMs: nowMs - 10_000,
      expiresAtMs: nowMs + 600_000,
      purpose: 'invoice-check',
      purposeText: 'Prüfe die Rechnungen',
      sensitivity: 'internal',
      destinations: [
        { ...httpApi, query: 'deny' },
        claims.authorization_details[1],
        claims.authorization_details[2],
      ],
      onBehalfOf: { iss: 'https://login.example.org', sub: 'user-1' },
      delegation: {
        maxDepth: 2,
        to: ['spiffe://example.org/agent/**'],
        issuers: ['https://x'],
      },
      s256: createHash('sha256').update(signingInput).digest('base64url'),
    })
  })

  test.each(['ES256', 'ES384', 'Ed25519', 'EdDSA', 'PS256', 'RS256'])(
    'verifies %s, and not by another key',
    async (alg) => {
      const own = await signingKey(alg, { kid: 'k' })
      const other = await signingKey(alg, { kid: 'k' })
      const keys = parseApproverKeys({ keys: [own.publicJwk] })
      const approvers = createApproverRegistry([approver], new Map([[approver.iss, keys]]))
      const options = optionsWith({}, { approvers })
      expect(await verifyGrant(signGrant(own, { nowMs }), options)).toMatchObject({ kid: 'k' })
      expect(await verifyGrant(signGrant(other, { nowMs }), options)).toMatchObject({
        code: 'task-grant-invalid',
        detail: 'its signature does not verify',
      })
    },
  )

  test.each<[string, Claims, string]>([
    [
      'sub of a trust domain',
      { sub: 'spiffe://example.org' },
      'sub: is not the SPIFFE ID of a workload',
    ],
    [
      'sub with dots',
      { sub: 'spiffe://example.org/a/../b' },
      'sub: is not the SPIFFE ID of a workload',
    ],
    [
      'a short jti',
      { jti: 'x'.repeat(15) },
      'jti: is not 16 to 128 characters of A-Z a-z 0-9 . _ ~ -',
    ],
    [
      'a jti with #',
      { jti: 'xxxxxxxxxxxxxxxx#' },
      'jti: is not 16 to 128 characters of A-Z a-z 0-9 . _ ~ -',
    ],
    ['an empty txn', { txn: '' }, 'txn: is not 1 to 128 characters of A-Z a-z 0-9 . _ ~ -'],
    ['a txn of dots', { txn: '..' }, 'txn: is not 1 to 128 characters of A-Z a-z 0-9 . _ ~ -'],
    [
      'a txn with a slash',
      { txn: 'a/b' },
      'txn: is not 1 to 128 characters of A-Z a-z 0-9 . _ ~ -',
    ],
    ['a purpose in upper case', { purpose: 'Invoice' }, 'purpose: is not a purpose code'],
    [
      'a long purpose text',
      { purpose_text: 'é'.repeat(513) },
      'purpose_text: is longer than 1024 bytes',
    ],
    [
      'a purpose text with escapes',
      { purpose_text: '\u001b[2J' },
      'purpose_text: has control characters',
    ],
    [
      'a purpose text that turns around',
      { purpose_text: 'a\u202eb' },
      'purpose_text: has control characters',
    ],
    [
      'an unknown sensitivity',
      { sensitivity: 'secret' },
      'sensitivity: is missing or not of its type',
    ],
    ['no destinations', { authorization_details: [] }, 'authorization_details: is empty'],
    [
      'destinations that are no list',
      { authorization_details: httpApi },
      'authorization_details: is missing or not of its type',
    ],
    [
      '65 destinations',
      { authorization_details: Array.from({ length: 65 }, () => webSocket) },
      'authorization_details: has more than 64 entries',
    ],
    ['a fraction in iat', { iat: now + 0.5 }, 'iat: is not an integer'],
    ['a negative nbf', { nbf: -1 }, 'nbf: is negative'],
    ['obo with more members', { obo: { iss: 'a', sub: 'b', x: 1 } }, 'obo.?: is not known'],
    [
      'delegation nine deep',
      { delegation: { max_depth: 9, to: [] } },
      'delegation.max_depth: is more than 8',
    ],
    [
      'delegation to a half segment',
      { delegation: { max_depth: 1, to: ['spiffe://a/b*'] } },
      'delegation.to[0]: is not a SPIFFE ID pattern',
    ],
    [
      'a parent by a short digest',
      { prf: { jti: 'grant-0000000000', iss: 'a', s256: 'x' } },
      'prf.s256: is not a SHA-256 digest in base64url',
    ],
    ['no ancestors', { anc: [] }, 'anc: is empty'],
    [
      'eight ancestors',
      { anc: Array.from({ length: 8 }, () => lineage.anc[0]) },
      'anc: has more than 7 entries',
    ],
    [
      'an ancestor that is no workload',
      { anc: [{ ...lineage.anc[0], sub: 'spiffe://example.org' }] },
      'anc[0].sub: is not the SPIFFE ID of a workload',
    ],
    ['an unknown claim', { role: 'admin' }, '?: is not known'],
    ['null for an optional claim', { nbf: null }, 'nbf: is missing or not of its type'],
  ])('refuses %s', async (_, claims, reason) => {
    expect(await outcome(claims)).toBe(`task-grant-invalid: claim ${reason}`)
  })

  test.each([
    'iss',
    'sub',
    'aud',
    'jti',
    'txn',
    'iat',
    'exp',
    'purpose',
    'sensitivity',
    'authorization_details',
  ])('refuses a grant without %s', async (claim) => {
    expect(await outcome({ [claim]: undefined })).toBe(
      `task-grant-invalid: claim ${claim}: is missing or not of its type`,
    )
  })

  test.each(['limits', 'cnf', 'stepup', 'use', 'agent'])(
    'refuses the constraint %s, which it could only ignore',
    async (claim) => {
      expect(await outcome({ [claim]: {} })).toBe(
        `task-grant-invalid: claim ${claim}: cannot be enforced by this version, so the grant is refused`,
      )
    },
  )

  test.each<[string, object, string]>([
    ['an unknown type', { ...httpApi, type: 'llm' }, '.type: is missing or not of its type'],
    ['no type', { ...httpApi, type: undefined }, '.type: is missing or not of its type'],
    ['an unknown member', { ...httpApi, headers: [] }, '.?: is not known'],
    ['datatypes', { ...httpApi, datatypes: ['x'] }, '.?: is not known'],
    ['resources', { ...mcpServer, resources: [] }, '.?: is not known'],
    ['tools of an API', { ...httpApi, tools: [] }, '.tools: is not known'],
    ['no paths', { ...httpApi, paths: undefined }, '.paths: is missing or not of its type'],
    ['no tools', { ...mcpServer, tools: undefined }, '.tools: is missing or not of its type'],
    ['no actions', { ...httpApi, actions: undefined }, '.actions: is missing or not of its type'],
    [
      'a method in lower case',
      { ...httpApi, actions: ['get'] },
      '.actions[0]: is not a method in upper case',
    ],
    ['every method', { ...httpApi, actions: ['*'] }, '.actions[0]: is not a method in upper case'],
    [
      'a host with a path',
      { ...httpApi, locations: ['https://a.org/x'] },
      '.locations[0]: is not an origin such as https://host or https://*.example.org',
    ],
    [
      'a host of any',
      { ...httpApi, locations: ['https://*'] },
      '.locations[0]: is not an origin such as https://host or https://*.example.org',
    ],
    [
      'a pattern of half a segment',
      { ...httpApi, paths: ['/a*'] },
      '.paths[0]: is not a path pattern: "*" is a whole segment, "**" the last one',
    ],
    [
      'a pattern with ** inside',
      { ...httpApi, paths: ['/v1/**', '/**/a'] },
      '.paths[1]: is not a path pattern: "*" is a whole segment, "**" the last one',
    ],
    [
      'query that is neither',
      { ...httpApi, query: 'maybe' },
      '.query: is missing or not of its type',
    ],
    [
      'an MCP server without scheme',
      { ...mcpServer, locations: ['a.org/mcp'] },
      '.locations[0]: is not a URL such as https://host/mcp',
    ],
    [
      'a tool with * inside',
      { ...mcpServer, tools: ['a*b'] },
      '.tools[0]: is not a name, or a name with "*" at the end',
    ],
    [
      'an unknown constraint',
      { ...mcpServer, args: { a: { regex: '.*' } } },
      '.args.?.?: is not known',
    ],
    ['an empty constraint', { ...mcpServer, args: { a: {} } }, '.args.?: constrains nothing'],
    [
      'a constraint by null',
      { ...mcpServer, args: { a: { max: null } } },
      '.args.?.max: is missing or not of its type',
    ],
    [
      'a WebSocket at https',
      { ...webSocket, locations: ['https://a.org'] },
      '.locations[0]: is not an origin such as wss://host',
    ],
    ['no object', 'x' as unknown as object, ': is missing or not of its type'],
  ])('refuses a destination with %s', async (_, destination, reason) => {
    expect(await outcome({ authorization_details: [webSocket, destination] })).toBe(
      `task-grant-invalid: claim authorization_details[1]${reason}`,
    )
  })

  test.each<[string, Claims, string]>([
    ['iat at the leeway', { iat: now + 5, exp: now + 60 }, 'accepted'],
    [
      'iat beyond the leeway',
      { iat: now + 6, exp: now + 60 },
      'task-grant-invalid: claim iat: is in the future',
    ],
    ['nbf at the leeway', { nbf: now + 5 }, 'accepted'],
    ['nbf beyond the leeway', { nbf: now + 6 }, 'task-grant-invalid: claim nbf: is in the future'],
    ['exp before iat', { exp: now }, 'task-grant-invalid: claim exp: is not after iat and nbf'],
    [
      'exp before nbf',
      { nbf: now + 5, exp: now + 5 },
      'task-grant-invalid: claim exp: is not after iat and nbf',
    ],
    [
      'exp in the past, which is for its holder alone to learn',
      { iat: now - 60, exp: now - 50 },
      'accepted',
    ],
    ['a life at the ceiling', { exp: now + 4 * 3600 }, 'accepted'],
    [
      'a life beyond the approver',
      { exp: now + 4 * 3600 + 1 },
      'task-grant-invalid: claim exp: beyond what this approver may sign',
    ],
    [
      'a life beyond all',
      { exp: now + 8 * 3600 + 1 },
      'task-grant-invalid: claim exp: too far ahead',
    ],
    [
      'an old long life',
      { iat: now - 9 * 3600, exp: now + 60 },
      'task-grant-invalid: claim exp: too far ahead',
    ],
  ])('judges %s', async (_, claims, expected) => {
    expect(await outcome(claims)).toBe(expected)
  })

  test('never lets a grant live longer than a day, whatever the settings', async () => {
    const day = 24 * 3_600_000
    const options = optionsWith({ maxTtl: 7 * day }, { maxTtlMs: 7 * day })
    expect(await outcome({ exp: now + 24 * 3600 }, options)).toBe('accepted')
    expect(await outcome({ exp: now + 24 * 3600 + 1 }, options)).toBe(
      'task-grant-invalid: claim exp: too far ahead',
    )
  })

  test('gives the parent and all above it of the grant of a sub-agent', async () => {
    expect(await verify(lineage)).toMatchObject({
      parent: {
        ...lineage.prf,
        ancestors: [{ jti: 'grant-0000000000', txn: 'root', agent: names.agent }],
      },
    })
  })

  test.each([
    ['anc', { prf: lineage.prf }],
    ['prf', { anc: lineage.anc }],
  ])('refuses a child without %s', async (_, claims) => {
    expect(await outcome(claims)).toBe(
      'task-grant-invalid: claims prf and anc: one without the other',
    )
  })

  test('takes the delegation authority for a child, never for a root', async () => {
    const own = await signingKey('ES256', { kid: 'd1' })
    const iss = 'https://delegation.example.org'
    const approvers = createApproverRegistry(
      [approver],
      new Map([
        [approver.iss, parseApproverKeys({ keys: [key.publicJwk] })],
        [iss, parseApproverKeys({ keys: [own.publicJwk] })],
      ]),
      { delegation: { iss, jwks: 'unused', maxTtl: 900_000 } },
    )
    const options = optionsWith({}, { approvers })
    const signed = (claims: Claims): Promise<Grant | Denial> =>
      verifyGrant(signGrant(own, { nowMs, claims: { iss, ...claims } }), options)
    expect(await signed(lineage)).toMatchObject({ approver: iss, kid: 'd1' })
    expect(await signed({ ...lineage, sensitivity: 'restricted' })).toMatchObject({ kid: 'd1' })
    expect(await signed({})).toMatchObject({ detail: 'its issuer is not an approver' })
    expect(await signed({ ...lineage, exp: now + 901 })).toMatchObject({
      detail: 'claim exp: beyond what this approver may sign',
    })
    expect(await signed({ ...lineage, iss: approver.iss })).toMatchObject({
      detail: 'its key is not one of this approver',
    })
    const forged = signGrant(stranger, {
      nowMs,
      claims: { iss, ...lineage },
      header: { kid: 'd1' },
    })
    expect(await verifyGrant(forged, options)).toMatchObject({
      detail: 'its signature does not verify',
    })
  })

  const excess = 'task-grant-invalid: claim'
  test.each<[string, Partial<ApproverConfig>, Claims, string]>([
    ['sensitivity at the ceiling', {}, { sensitivity: 'confidential' }, 'accepted'],
    [
      'sensitivity above',
      {},
      { sensitivity: 'restricted' },
      `${excess} sensitivity: beyond what this approver may sign`,
    ],
    ['a purpose of the list', { purposes: ['invoice-check'] }, {}, 'accepted'],
    [
      'another purpose',
      { purposes: ['other'] },
      {},
      `${excess} purpose: beyond what this approver may sign`,
    ],
    [
      'no purpose at all',
      { purposes: [] },
      {},
      `${excess} purpose: beyond what this approver may sign`,
    ],
    ['a location of the list', { locations: ['https://*.example.org'] }, {}, 'accepted'],
    [
      'all kinds of location',
      { locations: ['https://*.example.org'] },
      { authorization_details: [httpApi, mcpServer, webSocket] },
      'accepted',
    ],
    [
      'another location',
      { locations: ['https://b.example.org'] },
      {},
      `${excess} authorization_details: a location beyond what this approver may sign`,
    ],
    [
      'one location of two',
      { locations: ['https://api.example.org'] },
      {
        authorization_details: [
          httpApi,
          { ...httpApi, locations: ['https://api.example.org', 'https://b.org'] },
        ],
      },
      `${excess} authorization_details: a location beyond what this approver may sign`,
    ],
    [
      'a wildcard under one host',
      { locations: ['https://a.example.org'] },
      { authorization_details: [{ ...httpApi, locations: ['https://*.example.org'] }] },
      `${excess} authorization_details: a location beyond what this approver may sign`,
    ],
  ])('holds a grant to the ceilings of its signer: %s', async (_, ceilings, claims, expected) => {
    expect(await outcome(claims, optionsWith(ceilings))).toBe(expected)
  })

  test('holds a grant to the vocabulary of purposes', async () => {
    const reason = 'task-grant-invalid: claim purpose: is not in the vocabulary'
    expect(await outcome({}, optionsWith({}, { purposes: ['other'] }))).toBe(reason)
    expect(await outcome({}, optionsWith({}, { purposes: ['invoice-check'] }))).toBe('accepted')
  })
})

const agent: Agent = {
  id: names.agent,
  trustDomain: names.trustDomain,
  kind: 'jwt-svid',
  expiresAtMs: nowMs + 60_000,
  svidDigest: '0123456789abcdef',
}

test('grantChain() of a root is that one grant', async () => {
  const grant = await grantOf({ txn: 'task-1', jti: 'grant-0000000000' })
  expect(grantChain(grant)).toEqual({
    links: [grant],
    leaf: grant,
    signOffs: [],
    expiresAtMs: grant.expiresAtMs,
    subjects: [
      'task:task-1',
      `grant:${names.approver}#grant-0000000000`,
      `approver:${names.approver}`,
      'agent:spiffe://example.org/agent/a',
      'trust-domain:example.org',
      'agent-prefix:spiffe://example.org',
      'agent-prefix:spiffe://example.org/agent',
      'agent-prefix:spiffe://example.org/agent/a',
      'all',
    ],
  })
})

describe('checkGrantHolder()', () => {
  test.each<[string, SpiffeId]>([
    ['a longer path', 'spiffe://example.org/agent/ab'],
    ['a child', 'spiffe://example.org/agent/a/b'],
    ['another case', 'spiffe://example.org/agent/A'],
    ['another domain', 'spiffe://other.org/agent/a'],
  ])('accepts the subject alone, not %s', async (_, id) => {
    const chain = grantChain(await grantOf({}))
    expect(checkGrantHolder(chain, agent)).toBe(undefined)
    expect(checkGrantHolder(chain, { ...agent, id })).toMatchObject({
      code: 'task-grant-invalid',
      detail: 'its subject is another agent',
    })
  })

  test('refuses a grant that its own subject signed, or asked for', async () => {
    const grant = await grantOf({})
    expect(checkGrantHolder(grantChain({ ...grant, approver: agent.id }), agent)).toMatchObject({
      code: 'task-grant-invalid',
      detail: 'its approver is its subject',
    })
    const onBehalfOf = { iss: 'https://x', sub: agent.id }
    expect(checkGrantHolder(grantChain({ ...grant, onBehalfOf }), agent)).toMatchObject({
      code: 'task-grant-invalid',
      detail: 'it is on behalf of its own subject',
    })
  })
})
