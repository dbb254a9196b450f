import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  calculateJwkThumbprint,
  exportJWK,
  generateKeyPair,
  SignJWT,
  type CryptoKey,
  type JWK,
} from 'jose'

/** What `chaperone dev` stands on: a trust domain, an approver and a minting key of its own, in a folder of its own. */
export interface DevWorld {
  readonly directory: string
  readonly configPath: string
  readonly svidPath: string
  readonly svid: string
  /** Signs a grant for the demo agent, as the approver. */
  grant(options: { readonly txn: string; readonly ttlSeconds: number }): Promise<string>
}

export const devAgent = 'spiffe://dev.local/agent/demo'
const approver = 'https://approver.dev.local'
const audience = 'spiffe://dev.local/chaperone'
const svidLifeSeconds = 8 * 3600

interface WorldOptions {
  readonly upstreamUrl: string
  readonly agentPort: number
  readonly adminPort: number
}

/** Makes all keys and files anew: nothing of an earlier run is trusted. */
export async function createDevWorld(options: WorldOptions): Promise<DevWorld> {
  const directory = await mkdtemp(join(tmpdir(), 'chaperone-dev-'))
  const [authority, owner, minter] = await Promise.all([keyPair(), keyPair(), keyPair()])
  const svid = await signSvid(authority)
  const file = async (name: string, text: string): Promise<string> => {
    const path = join(directory, name)
    await writeFile(path, text, { mode: 0o600 })
    return path
  }
  await file('bundle.json', JSON.stringify({ keys: [{ ...authority.publicJwk, use: 'jwt-svid' }] }))
  await file('approvers.jwks.json', JSON.stringify({ keys: [owner.publicJwk] }))
  await file('mint.jwks.json', JSON.stringify({ keys: [minter.privateJwk] }))
  const svidPath = await file('agent.svid', svid)
  const configPath = await file('chaperone.yaml', devConfig(options))
  return {
    directory,
    configPath,
    svidPath,
    svid,
    grant: ({ txn, ttlSeconds }) =>
      signGrant(owner, { txn, ttlSeconds, upstreamUrl: options.upstreamUrl }),
  }
}

interface KeyPair {
  readonly privateKey: CryptoKey
  readonly publicJwk: JWK
  readonly privateJwk: JWK
  readonly kid: string
}

async function keyPair(): Promise<KeyPair> {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = await exportJWK(publicKey)
  const kid = await calculateJwkThumbprint(jwk)
  const named = { kid, alg: 'ES256' }
  return {
    privateKey,
    publicJwk: { ...jwk, ...named },
    privateJwk: { ...(await exportJWK(privateKey)), ...named },
    kid,
  }
}

function signSvid({ privateKey, kid }: KeyPair): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  return new SignJWT({ sub: devAgent, aud: [audience], iat: now, exp: now + svidLifeSeconds })
    .setProtectedHeader({ alg: 'ES256', kid, typ: 'JWT' })
    .sign(privateKey)
}

function signGrant(
  { privateKey, kid }: KeyPair,
  options: { readonly txn: string; readonly ttlSeconds: number; readonly upstreamUrl: string },
): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  const { txn, ttlSeconds, upstreamUrl } = options
  const details = [
    {
      type: 'http_api',
      locations: [upstreamUrl],
      actions: ['GET'],
      paths: ['/invoices', '/events'],
    },
    { type: 'ws', locations: [upstreamUrl.replace(/^http/, 'ws')], paths: ['/live'] },
  ]
  return new SignJWT({
    iss: approver,
    sub: devAgent,
    aud: audience,
    jti: `grant-${crypto.randomUUID()}`,
    txn,
    iat: now,
    exp: now + ttlSeconds,
    purpose: 'invoice-check',
    purpose_text: 'Check the open invoices of October',
    sensitivity: 'internal',
    authorization_details: details,
  })
    .setProtectedHeader({ alg: 'ES256', kid, typ: 'task-grant+jwt' })
    .sign(privateKey)
}

function devConfig({ upstreamUrl, agentPort, adminPort }: WorldOptions): string {
  return `version: 1
trustDomain: dev.local
listen: { agent: "127.0.0.1:${agentPort}", admin: "127.0.0.1:${adminPort}" }
identity:
  trustBundles: [{ trustDomain: dev.local, file: bundle.json }]
approvers:
  - iss: ${approver}
    jwks: approvers.jwks.json
revocation: { source: embedded }
upstreams:
  - name: invoices
    url: ${upstreamUrl}
    allowPrivateAddresses: true
    credential: { mint: { audience: "https://invoices.dev.local", ttl: 2m } }
routes:
  - { prefix: /api, upstream: invoices }
mint:
  issuer: https://chaperone.dev.local
  keys: { file: mint.jwks.json }
audit: { sink: audit.ndjson }
shutdown: { drain: 2s }
log: { level: warn }
`
}
