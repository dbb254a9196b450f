import type { Command } from 'commander'
import * as v from 'valibot'
import { findRedisContradictions } from '../config/contradictions.ts'
import { formatProblem, loadConfig } from '../config/load.ts'
import { parseRedisUrl, redisUrlExpected } from '../config/redis-url.ts'
import type { OperatorConfig, RedisConfig } from '../config/schema.ts'
import { name, trustDomain as trustDomainSchema } from '../config/setting.ts'
import { exitCodes } from './exit-codes.ts'

/** Which store a command talks to: that of a configuration, or one named on the command line. */
export interface Store {
  readonly redis: RedisConfig
  readonly trustDomain: string
  /** Who may lift. Undefined when no configuration was read, so nobody here knows. */
  readonly operators: readonly OperatorConfig[] | undefined
}

/** What `addStoreOptions()` reads from the command line. */
export interface StoreOptions {
  readonly config: string
  readonly redis?: string
  readonly trustDomain?: string
  readonly username?: string
  readonly passwordFile?: string
  readonly sentinelUsername?: string
  readonly sentinelPasswordFile?: string
  readonly caFile?: string
  readonly certFile?: string
  readonly keyFile?: string
  readonly prefix?: string
}

/** The command line or the configuration names no store that can be used. */
export class StoreOptionsError extends Error {
  override readonly name = 'StoreOptionsError'
  readonly code = 'ERR_STORE_OPTIONS'
  readonly exitCode: number
  constructor(message: string, exitCode: number = exitCodes.usage) {
    super(message)
    this.exitCode = exitCode
  }
}

/** Adds the options that name the store. An operator at 3 am may have nothing but an address. */
export function addStoreOptions(command: Command): Command {
  return command
    .option('-c, --config <path>', 'configuration that names the Redis', 'chaperone.yaml')
    .option(
      '--redis <url>',
      'Redis instead of the configuration: redis://host:port, redis-sentinel://host:port,.../master or redis-cluster://host:port,...; rediss... for TLS',
    )
    .option('--trust-domain <name>', 'trust domain, with --redis')
    .option('--username <name>', 'Redis user, with --redis')
    .option('--password-file <path>', 'file with the Redis password, with --redis')
    .option('--sentinel-username <name>', 'user of the Sentinels, with --redis')
    .option('--sentinel-password-file <path>', 'file with its password, with --redis')
    .option('--ca-file <path>', 'PEM of the authority that signs the server, with --redis')
    .option('--cert-file <path>', 'PEM client certificate, with --redis')
    .option('--key-file <path>', 'PEM key of the client certificate, with --redis')
    .option('--prefix <name>', 'key prefix, with --redis (default: chaperone)')
}

/** Throws `StoreOptionsError` when there is no Redis to talk to. */
export function readStoreOptions(options: StoreOptions): Store {
  if (options.redis !== undefined) return namedStore(options.redis, options)
  const stray = onlyWithRedis.find((key) => options[key] !== undefined)
  if (stray !== undefined) {
    throw new StoreOptionsError(`--${kebab(stray)} needs --redis: the configuration names its own`)
  }
  return configuredStore(options.config)
}

/** Asks the store, and names it when it does not answer. */
export async function askStore<T>(
  { url }: Pick<RedisConfig, 'url'>,
  ask: () => Promise<T>,
  { advice }: { readonly advice?: string } = {},
): Promise<T> {
  try {
    return await ask()
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : 'unknown error'
    throw new Error([`${url}: ${why}`, ...(advice === undefined ? [] : [advice])].join('\n'), {
      cause,
    })
  }
}

/** What the configuration calls the same. */
const accessOptions = [
  'username',
  'passwordFile',
  'sentinelUsername',
  'sentinelPasswordFile',
  'caFile',
  'certFile',
  'keyFile',
] as const
const onlyWithRedis = ['trustDomain', ...accessOptions, 'prefix'] as const

function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

function namedStore(url: string, options: StoreOptions): Store {
  const { trustDomain, prefix = 'chaperone' } = options
  if (trustDomain === undefined) throw new StoreOptionsError('--redis needs --trust-domain')
  // Keys of a name that no sidecar can have: the record would reach nobody.
  expectValid(trustDomain, { schema: trustDomainSchema, option: '--trust-domain' })
  expectValid(prefix, { schema: name, option: '--prefix' })
  // The URL is not quoted: what is wrong with it may be a password.
  if (!parseRedisUrl(url)) throw new StoreOptionsError(`--redis: ${redisUrlExpected}`)
  const access = Object.fromEntries(
    accessOptions.flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])),
  )
  const redis = { url, prefix, ...access }
  const [contradiction] = findRedisContradictions(redis)
  if (contradiction) {
    const { key, message } = contradiction
    throw new StoreOptionsError(`--${key === 'url' ? 'redis' : kebab(key)}: ${message}`)
  }
  return { trustDomain, redis, operators: undefined }
}

function configuredStore(path: string): Store {
  const loaded = loadConfig(path)
  if (!loaded.ok) {
    throw new StoreOptionsError(loaded.problems.map(formatProblem).join('\n'), exitCodes.badConfig)
  }
  const { revocation, trustDomain, operators } = loaded.config
  if (revocation.source !== 'redis') {
    throw new StoreOptionsError(
      `${path}: revocation.source is embedded: there is no store that another process could reach`,
      exitCodes.badConfig,
    )
  }
  return { redis: revocation.redis, trustDomain, operators }
}

function expectValid(
  text: string,
  { schema, option }: { readonly schema: v.GenericSchema<string>; readonly option: string },
): void {
  const read = v.safeParse(schema, text)
  if (!read.success) throw new StoreOptionsError(`${option}: ${read.issues[0].message}`)
}
