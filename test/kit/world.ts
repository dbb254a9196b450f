import { execFile } from 'node:child_process'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { GrantClaims } from '../../policy/grant.ts'
import { startRedis, type RedisProcess } from './redis.ts'
import { startSidecarProcess, type SidecarProcess } from './sidecar.ts'
import {
  bundleDocument,
  jwksDocument,
  names,
  signGrant,
  signingKey,
  signSvid,
  type SigningKey,
} from './tokens.ts'
import { startUpstream, type UpstreamProcess } from './upstream.ts'

/** A whole deployment of real processes: Redis, an upstream, one sidecar in front of it. */
export interface World extends AsyncDisposable {
  readonly redis: RedisProcess
  readonly upstream: UpstreamProcess
  readonly sidecar: SidecarProcess
  /** A valid SVID of `names.agent`. */
  readonly svid: string
  readonly agentAuthority: SigningKey
  readonly approver: SigningKey
  /** A compact grant of this task to everything of the upstream, but for what the claims change. */
  grant(txn: string, claims?: Partial<GrantClaims>): string
  /** Signs and stores it as the CLI would. */
  approve(txn: string, claims?: Partial<GrantClaims>): Promise<void>
  /** `Authorization` and `Task-Id` as an agent sends them. */
  headers(txn: string): Record<string, string>
  /** Runs `chaperone <args> -c <config>`. */
  cli(...args: readonly string[]): Promise<CliResult>
  /** Another sidecar of the same deployment. */
  another(changes?: WorldChanges): Promise<SidecarProcess>
}

export interface CliResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface WorldChanges {
  /** Replaces the line of this top-level setting, or adds it: `shutdown: { drain: 1s }`. */
  readonly settings?: Readonly<Record<string, string>>
  /** More members of `revocation`: `denyFile: deny.txt, staleAfterReads: 1m`. */
  readonly revocation?: string
  /** More files of the sidecar's folder. */
  readonly files?: Readonly<Record<string, string>>
  /** More members of `listen`. */
  readonly listen?: string
  /** Modules that the sidecar's process loads first. */
  readonly imports?: readonly string[]
  readonly upstreamArgs?: readonly string[]
  readonly waitReady?: boolean
}

const mainPath = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
/** What stands in the inject slots: tests look for it at the upstream, and for its absence everywhere else. */
export const injectedSecret = 'static-key-0123456789'

/** Routes: /api (mint), /llm (static bearer), /github (static bearer), /mcp (mint, MCP), /key (static query). */
export async function startWorld(changes: WorldChanges = {}): Promise<World> {
  const [agentAuthority, approver, minter] = await Promise.all([
    signingKey(),
    signingKey(),
    signingKey(),
  ])
  const stack = new AsyncDisposableStack()
  try {
    const redis = stack.use(await startRedis())
    const upstream = stack.use(await startUpstream(changes.upstreamArgs))
    const files = {
      'bundle.json': bundleDocument([agentAuthority]),
      'approvers.json': jwksDocument([approver]),
      'mint.json': JSON.stringify({ keys: [minter.privateJwk] }),
      'static.key': `${injectedSecret}\n`,
    }
    const start = (more: WorldChanges = {}): Promise<SidecarProcess> =>
      startSidecarProcess({
        config: configText(
          {
            redisUrl: redis.url,
            upstreamUrl: upstream.url,
            revocation: more.revocation ?? changes.revocation ?? '',
          },
          { ...changes.settings, ...more.settings },
        ),
        files: { ...files, ...changes.files, ...more.files },
        listen: more.listen ?? changes.listen ?? '',
        imports: more.imports ?? changes.imports ?? [],
        waitReady: more.waitReady ?? changes.waitReady ?? true,
      })
    const sidecar = stack.use(await start({}))
    const svid = signSvid(agentAuthority)
    const grant = (txn: string, claims: Partial<GrantClaims> = {}): string =>
      signGrant(approver, {
        claims: { txn, authorization_details: everything(upstream.url), ...claims },
      })
    const cli = (...args: readonly string[]): Promise<CliResult> =>
      runCli([...args, '-c', join(sidecar.directory, 'chaperone.yaml')])
    const owned = stack.move()
    return {
      redis,
      upstream,
      sidecar,
      svid,
      agentAuthority,
      approver,
      grant,
      cli,
      another: start,
      headers: (txn) => ({ authorization: `Bearer ${svid}`, 'task-id': txn }),
      async approve(txn, claims) {
        const expiresMs = Date.now() + 600_000
        const compact = grant(txn, claims)
        await putGrant(redis.url, { txn, compact, expiresAtMs: expiresMs })
      },
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    }
  } catch (error) {
    await stack.disposeAsync()
    throw error
  }
}

/** Everything of the upstream: tests narrow it. */
export function everything(upstreamUrl: string): GrantClaims['authorization_details'] {
  return [
    {
      type: 'http_api',
      locations: [upstreamUrl],
      actions: ['GET', 'HEAD', 'POST', 'PUT', 'DELETE'],
      paths: ['/**'],
    },
    { type: 'ws', locations: [upstreamUrl.replace('http', 'ws')], paths: ['/ws'] },
    { type: 'mcp_server', locations: [`${upstreamUrl}/mcp`], tools: ['lookup', 'wait'] },
  ]
}

/** Runs the built program. Resolves also when it fails. */
export function runCli(args: readonly string[]): Promise<CliResult> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [mainPath, ...args],
      { timeout: 60_000 },
      (error, stdout, stderr) => {
        const code = error ? (typeof error.code === 'number' ? error.code : -1) : 0
        resolve({ code, stdout, stderr })
      },
    )
  })
}

/** A folder that outlives the test run only when it crashed. */
export async function temporaryFile(name: string, text: string): Promise<string> {
  const path = join(await mkdtemp(join(tmpdir(), 'chaperone-file-')), name)
  await writeFile(path, text, { mode: 0o600 })
  return path
}

async function putGrant(
  redisUrl: string,
  grant: { readonly txn: string; readonly compact: string; readonly expiresAtMs: number },
): Promise<void> {
  const { createRedisGrantStore } = await import('../../revocation/redis-grant-store.ts')
  const { systemClock } = await import('../../proxy/system-clock.ts')
  await using store = createRedisGrantStore({
    redis: { url: redisUrl, prefix: 'chaperone' },
    trustDomain: names.trustDomain,
    clock: systemClock,
  })
  await store.put(grant.txn, grant)
}

function configText(
  {
    redisUrl,
    upstreamUrl,
    revocation,
  }: {
    readonly redisUrl: string
    readonly upstreamUrl: string
    readonly revocation: string
  },
  settings: Readonly<Record<string, string>> = {},
): string {
  const common = 'allowPrivateAddresses: true'
  const bearer =
    'inject: { header: authorization, template: "Bearer {secret}", secret: { file: static.key } }'
  const mint = 'mint: { audience: "https://api.example.org", ttl: 2m }'
  const lines: Record<string, string> = {
    version: 'version: 1',
    trustDomain: `trustDomain: ${names.trustDomain}`,
    identity: `identity: { trustBundles: [{ trustDomain: ${names.trustDomain}, file: bundle.json }] }`,
    approvers: `approvers: [{ iss: "${names.approver}", jwks: approvers.json }]`,
    revocation: `revocation: { source: redis, redis: { url: "${redisUrl}" }, ${revocation} }`,
    upstreams: `upstreams:
  - { name: api, url: "${upstreamUrl}", ${common}, credential: { ${mint} } }
  - { name: llm, url: "${upstreamUrl}", ${common}, credential: { ${bearer} } }
  - { name: keyed, url: "${upstreamUrl}", ${common}, credential: { inject: { query: key, secret: { file: static.key } } } }
  - { name: tools, kind: mcp, url: "${upstreamUrl}/mcp", ${common}, credential: { ${mint} } }`,
    routes: `routes:
  - { prefix: /api, upstream: api }
  - { prefix: /llm, upstream: llm }
  - { prefix: /github, upstream: llm }
  - { prefix: /key, upstream: keyed }
  - { prefix: /mcp, upstream: tools }`,
    mint: 'mint: { issuer: "https://chaperone.example.org", keys: { file: mint.json } }',
    audit: 'audit: { sink: audit.ndjson }',
    shutdown: 'shutdown: { drain: 1s }',
    ...settings,
  }
  return `${Object.values(lines).join('\n')}\n`
}
