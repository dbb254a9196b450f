import { resolve } from 'node:path'
import type {
  Config,
  CredentialConfig,
  ListenTlsConfig,
  RedisConfig,
  TrustBundleConfig,
} from './schema.ts'

/** The same configuration with every path absolute: relative ones are taken from `directory`. */
export function resolveFiles(config: Config, directory: string): Config {
  const absolute = (path: string) => resolve(directory, path)
  const { listen, identity, approvers, delegation, operators, grants } = config
  const { policy, revocation, upstreams, mint, audit } = config
  return {
    ...config,
    listen: { ...listen, ...(listen.tls && { tls: resolveTls(listen.tls, absolute) }) },
    identity: {
      ...identity,
      trustBundles: identity.trustBundles.map((bundle) => resolveBundle(bundle, absolute)),
    },
    approvers: approvers.map((approver) => ({ ...approver, jwks: absolute(approver.jwks) })),
    ...(delegation && { delegation: { ...delegation, jwks: absolute(delegation.jwks) } }),
    operators: operators.map((operator) => ({ ...operator, jwks: absolute(operator.jwks) })),
    grants: { ...grants, ...(grants.file !== undefined && { file: absolute(grants.file) }) },
    policy: {
      ...policy,
      ...(policy.directory !== undefined && { directory: absolute(policy.directory) }),
      ...(policy.shadow !== undefined && { shadow: absolute(policy.shadow) }),
      ...(policy.tests !== undefined && { tests: absolute(policy.tests) }),
    },
    revocation: resolveRevocation(revocation, absolute),
    upstreams: upstreams.map((upstream) => ({
      ...upstream,
      ...(upstream.tools !== undefined && { tools: absolute(upstream.tools) }),
      ...(upstream.openapi !== undefined && { openapi: absolute(upstream.openapi) }),
      ...(upstream.caFile !== undefined && { caFile: absolute(upstream.caFile) }),
      credential: resolveCredential(upstream.credential, absolute),
    })),
    ...(mint && { mint: { ...mint, keys: { file: absolute(mint.keys.file) } } }),
    audit: {
      ...audit,
      sink: audit.sink === 'stdout' ? audit.sink : absolute(audit.sink),
      ...(audit.spool && { spool: { ...audit.spool, file: absolute(audit.spool.file) } }),
      ...(audit.checkpoint && {
        checkpoint: { ...audit.checkpoint, keys: { file: absolute(audit.checkpoint.keys.file) } },
      }),
    },
  }
}

type Absolute = (path: string) => string

function resolveTls(
  { certFile, keyFile, clientCaFile }: ListenTlsConfig,
  absolute: Absolute,
): ListenTlsConfig {
  return {
    certFile: absolute(certFile),
    keyFile: absolute(keyFile),
    ...(clientCaFile !== undefined && { clientCaFile: absolute(clientCaFile) }),
  }
}

function resolveBundle(bundle: TrustBundleConfig, absolute: Absolute): TrustBundleConfig {
  if ('file' in bundle) return { ...bundle, file: absolute(bundle.file) }
  return { ...bundle, ...(bundle.caFile !== undefined && { caFile: absolute(bundle.caFile) }) }
}

function resolveRevocation(
  revocation: Config['revocation'],
  absolute: Absolute,
): Config['revocation'] {
  const { denyFile } = revocation
  const common = denyFile === undefined ? {} : { denyFile: absolute(denyFile) }
  if (revocation.source !== 'redis') return { ...revocation, ...common }
  const { snapshotFile, redis } = revocation
  return {
    ...revocation,
    ...common,
    redis: resolveRedis(redis, absolute),
    ...(snapshotFile !== undefined && { snapshotFile: absolute(snapshotFile) }),
  }
}

function resolveRedis(redis: RedisConfig, absolute: Absolute): RedisConfig {
  const { passwordFile, sentinelPasswordFile, caFile, certFile, keyFile } = redis
  return {
    ...redis,
    ...(passwordFile !== undefined && { passwordFile: absolute(passwordFile) }),
    ...(sentinelPasswordFile !== undefined && {
      sentinelPasswordFile: absolute(sentinelPasswordFile),
    }),
    ...(caFile !== undefined && { caFile: absolute(caFile) }),
    ...(certFile !== undefined && { certFile: absolute(certFile) }),
    ...(keyFile !== undefined && { keyFile: absolute(keyFile) }),
  }
}

function resolveCredential(credential: CredentialConfig, absolute: Absolute): CredentialConfig {
  if (!('inject' in credential)) return credential
  const { inject } = credential
  return { inject: { ...inject, secret: { file: absolute(inject.secret.file) } } }
}
