import { InvalidArgumentError, Option, type Command } from 'commander'
import { formatProblem, loadConfig } from '../config/load.ts'
import type { RedisConfig } from '../config/schema.ts'

/** Which store a command talks to: that of a configuration, or one named on the command line. */
export interface Store {
  readonly redis: RedisConfig
  readonly trustDomain: string
}

/** What `addStoreOptions()` reads from the command line. */
export interface StoreOptions {
  readonly config: string
  readonly redis?: string
  readonly trustDomain?: string
  readonly username?: string
  readonly passwordFile?: string
  readonly caFile?: string
  readonly prefix?: string
}

/** The command line or the configuration names no store that can be used. */
export class StoreOptionsError extends Error {
  override readonly name = 'StoreOptionsError'
  readonly code = 'ERR_STORE_OPTIONS'
}

/** Adds the options that name the store. An operator at 3 am may have nothing but an address. */
export function addStoreOptions(command: Command): Command {
  return command
    .option('-c, --config <path>', 'configuration that names the Redis', 'chaperone.yaml')
    .addOption(
      new Option(
        '--redis <url>',
        'Redis instead of the configuration: redis://host:port',
      ).argParser(redisUrl),
    )
    .option('--trust-domain <name>', 'trust domain, with --redis')
    .option('--username <name>', 'Redis user, with --redis')
    .option('--password-file <path>', 'file with the Redis password, with --redis')
    .option('--ca-file <path>', 'PEM of the authority that signs the server, with --redis')
    .option('--prefix <name>', 'key prefix, with --redis (default: chaperone)')
}

/** Throws `StoreOptionsError` when there is no Redis to talk to. */
export function readStoreOptions(options: StoreOptions): Store {
  const { redis: url, trustDomain, prefix = 'chaperone', username, passwordFile, caFile } = options
  if (url !== undefined) {
    if (trustDomain === undefined) throw new StoreOptionsError('--redis needs --trust-domain')
    const redis = {
      url,
      prefix,
      ...(username !== undefined && { username }),
      ...(passwordFile !== undefined && { passwordFile }),
      ...(caFile !== undefined && { caFile }),
    }
    return { trustDomain, redis }
  }
  const loaded = loadConfig(options.config)
  if (!loaded.ok) throw new StoreOptionsError(loaded.problems.map(formatProblem).join('\n'))
  const { revocation } = loaded.config
  if (revocation.source !== 'redis') {
    throw new StoreOptionsError(
      `${options.config}: revocation.source is embedded: there is no store that another process could reach`,
    )
  }
  return { redis: revocation.redis, trustDomain: loaded.config.trustDomain }
}

function redisUrl(text: string): string {
  if (/^rediss?:\/\/[^@/?#]+(\/\d{1,4})?$/.test(text)) return text
  throw new InvalidArgumentError(
    'Expected redis://host:port or rediss://host:port without user or password: use --username and --password-file.',
  )
}
