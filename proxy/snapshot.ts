import type { Config, UpstreamConfig } from '../config/schema.ts'
import { readTextFile } from '../config/read-text-file.ts'
import type { Issuer } from '../credential/issuer.ts'
import { createIssuer } from '../credential/issuers.ts'
import { createMintKeys, type MintKeys } from '../credential/mint.ts'
import { createSvidVerifier, type SvidVerifier } from '../identity/svid-verifier.ts'
import { TrustBundles } from '../identity/trust-bundles.ts'
import {
  createApproverRegistry,
  parseApproverKeys,
  type ApproverRegistry,
} from '../policy/approver.ts'
import type { EngineObserver, PolicyEngine } from '../policy/cedar.ts'
import type { Clock, Upstream } from '../policy/types.ts'
import { identifyAll, type WatchedFiles } from './file-identity.ts'
import { readFactsInWorker } from './build-in-worker.ts'
import { createGrantVerifier, type GrantVerifier } from './grant-verifier.ts'
import { openGrantFile, type GrantFile } from './grant-file.ts'
import { loadPolicies, loadPoliciesInBackground, policyPaths, type Policies } from './policies.ts'
import { compileRoutes, type RouteTable } from './route.ts'
import { upstreamFacts } from './upstream-facts.ts'
import { createUpstreamClient, type UpstreamClient } from './upstream-client.ts'

/** An upstream with everything that a request to it needs. */
export interface SnapshotUpstream {
  readonly facts: Upstream
  readonly config: UpstreamConfig
  readonly client: UpstreamClient
  readonly issuer: Issuer
  /** The Host field that it gets: its own authority, never the agent's. */
  readonly authority: string
}

/** Everything that one configuration means. A reload builds another and swaps the whole; a request keeps its own. */
export interface Snapshot extends AsyncDisposable {
  readonly config: Config
  readonly configSha: string
  readonly audience: string
  readonly routes: RouteTable
  readonly upstreams: ReadonlyMap<string, SnapshotUpstream>
  readonly bundles: TrustBundles
  readonly svids: SvidVerifier
  readonly grants: GrantVerifier
  readonly grantFile: GrantFile | undefined
  readonly policies: Policies
  /** What the policies were made of. */
  readonly watched: WatchedFiles
  /** Of the policies in force. */
  readonly engine: PolicyEngine
  readonly mintKeys: MintKeys | undefined
}

/** What a configuration names cannot be used. The message lists all of it, without any secret. */
export class SnapshotError extends Error {
  override readonly name = 'SnapshotError'
  readonly code = 'ERR_SNAPSHOT'
}

interface SnapshotOptions {
  readonly config: Config
  readonly configSha: string
  readonly clock: Clock
  readonly observer?: EngineObserver
  /** Reads documents and compiles policies in a thread of their own, because this one serves. Default false, which is sooner done. */
  readonly inBackground?: boolean
}

/**
 * Builds everything that a configuration means. Rejects with `SnapshotError`, or the error of the part that cannot be
 * built: a half-built snapshot never serves.
 */
export async function createSnapshot({
  config,
  configSha,
  clock,
  observer,
  inBackground = false,
}: SnapshotOptions): Promise<Snapshot> {
  const audience = config.audience ?? `spiffe://${config.trustDomain}/chaperone`
  const approvers = readApprovers(config)
  const mintKeys = config.mint && createMintKeys(config.mint, { clock })
  const routes = compileRoutes(config)
  // Looked at before they are read: what changes in between is then seen to be new.
  const paths = policyPaths(config)
  const watched: WatchedFiles = { paths, identity: identifyAll(paths) }
  const isLong = inBackground && config.upstreams.some(({ openapi }) => openapi !== undefined)
  const facts = isLong ? await readFactsInWorker(config.upstreams) : upstreamFacts(config.upstreams)
  const upstreams = openUpstreams(facts, { config, mintKeys, clock })
  const bundles = new TrustBundles(config.identity, { clock })
  const load = inBackground ? loadPoliciesInBackground : loadPolicies
  const policies = await load(config.policy, { upstreams: facts, observer })
  await bundles.start()
  return {
    config,
    configSha,
    audience,
    routes,
    upstreams,
    bundles,
    svids: createSvidVerifier({ identity: config.identity, audience, bundles, clock }),
    grants: createGrantVerifier({
      approvers,
      audience,
      clockSkewMs: config.identity.clockSkew,
      maxTtlMs: config.grants.maxTtl,
      purposes: config.grants.purposes,
      clock,
    }),
    grantFile:
      config.grants.file === undefined ? undefined : openGrantFile(config.grants.file, clock),
    policies,
    watched,
    engine: policies.engine,
    mintKeys,
    async [Symbol.asyncDispose]() {
      await bundles[Symbol.asyncDispose]()
      await Promise.all([...upstreams.values()].map(({ client }) => client.close()))
      policies[Symbol.dispose]()
    },
  }
}

const maxJwksBytes = 256 * 1024
const maxCaBytes = 1024 * 1024

/** The approver authorities of a configuration, and its delegation authority. Throws `SnapshotError`. */
export function readApprovers({ approvers, delegation }: Config): ApproverRegistry {
  const keys = [...approvers, ...(delegation ? [delegation] : [])].map(({ iss, jwks }) => {
    try {
      return [
        iss,
        parseApproverKeys(JSON.parse(readTextFile(jwks, { maxBytes: maxJwksBytes }))),
      ] as const
    } catch (cause) {
      // A JSON error quotes the text: only our own words are passed on.
      const why =
        cause instanceof SyntaxError || !(cause instanceof Error) ? 'not JSON' : cause.message
      throw new SnapshotError(`Approver "${iss}": ${jwks}: ${why}`, { cause })
    }
  })
  return createApproverRegistry(approvers, new Map(keys), { delegation })
}

interface UpstreamContext {
  readonly config: Config
  readonly mintKeys: MintKeys | undefined
  readonly clock: Clock
}

function openUpstreams(
  facts: ReadonlyMap<string, Upstream>,
  context: UpstreamContext,
): ReadonlyMap<string, SnapshotUpstream> {
  return new Map(
    context.config.upstreams.flatMap((config) => {
      const known = facts.get(config.name)
      return known ? [[config.name, openUpstream(config, { facts: known, ...context })]] : []
    }),
  )
}

function openUpstream(
  config: UpstreamConfig,
  { facts, mintKeys, clock }: Omit<UpstreamContext, 'config'> & { readonly facts: Upstream },
): SnapshotUpstream {
  const { caFile } = config
  const ca = caFile === undefined ? undefined : readTextFile(caFile, { maxBytes: maxCaBytes })
  return {
    facts,
    config,
    client: createUpstreamClient({ config, ca }),
    issuer: createIssuer(config.credential, { mintKeys, clock }),
    authority: new URL(config.url).host,
  }
}
