import { writeFile } from 'node:fs/promises'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { parseDuration } from '../config/duration.ts'
import type { Config } from '../config/schema.ts'
import { isDenial } from '../policy/denial.ts'
import { lineageBelow } from '../policy/attenuate.ts'
import { grantTyp } from '../policy/grant-claims.ts'
import type { GrantClaims } from '../policy/grant.ts'
import { sensitivities, type Grant } from '../policy/types.ts'
import { systemClock } from '../proxy/system-clock.ts'
import { destinationOf } from './destination-option.ts'
import { exitCodes } from './exit-codes.ts'
import { audienceOf, loadOrReport, verifyAsSidecar, withGrantStore } from './grants.ts'
import { printable } from './printable.ts'
import { readPrivateKey, signClaims } from './private-key.ts'

/** `chaperone task grant`: what an approver signs, for an agent or for a sub-agent of one. */
export function registerTaskGrant(task: Command): void {
  task
    .command('grant')
    .description('sign a grant with the approver key, check it as a sidecar would, and store it')
    .requiredOption('-k, --key <path>', 'private JWK or JWK Set of the approver')
    .requiredOption('--agent <spiffe id>', 'who may act')
    .requiredOption('--txn <id>', 'the task')
    .option('--purpose <code>', 'one purpose, such as invoice-check; with --parent: its own')
    .requiredOption(
      '--allow <destination...>',
      '"GET,POST https://host/path/**", "mcp https://host/mcp tool_a,tool_*" or "ws wss://host/path"',
      collectDestination,
    )
    .option('--text <text>', 'the purpose in words')
    .addOption(
      new Option(
        '--sensitivity <class>',
        'highest class of data (default: internal; with --parent: its own)',
      ).choices(sensitivities),
    )
    .addOption(
      new Option(
        '--ttl <duration>',
        'how long (default: 30m; with --parent: no longer than it)',
      ).argParser(ttl),
    )
    .option('--parent <txn>', 'the task that this one hangs on: it cannot be wider')
    .option(
      '--delegate-to <pattern...>',
      'to which agents it may be delegated: spiffe://td/agent/*',
    )
    .addOption(
      new Option('--max-depth <count>', 'with --delegate-to: how many links may hang on it')
        .default(1)
        .argParser(depth),
    )
    .option('--iss <authority>', 'the approver; default: the only one of the configuration')
    .option('-c, --config <path>', 'configuration file', 'chaperone.yaml')
    .option('-o, --out <path>', 'write the compact grant to a file instead of the store')
    .option('--print', 'print the compact grant instead of storing it', false)
    .action(async (options: GrantOptions) => {
      process.exitCode = await grant(options)
    })
}

interface GrantOptions {
  readonly config: string
  readonly key: string
  readonly iss?: string
  readonly agent: string
  readonly txn: string
  readonly purpose?: string
  readonly text?: string
  readonly sensitivity?: Grant['sensitivity']
  /** Milliseconds. */
  readonly ttl?: number
  readonly parent?: string
  readonly delegateTo?: readonly string[]
  readonly maxDepth: number
  readonly allow: readonly GrantClaims['authorization_details'][number][]
  readonly out?: string
  readonly print: boolean
}

async function grant(options: GrantOptions): Promise<number> {
  const config = loadOrReport(options.config)
  if (!config) return exitCodes.badConfig
  const parent = options.parent === undefined ? undefined : await findParent(options.parent, config)
  if (typeof parent === 'string') {
    process.stderr.write(`${parent}\n`)
    return exitCodes.failed
  }
  const purpose = options.purpose ?? parent?.purpose
  if (purpose === undefined) {
    process.stderr.write('Expected --purpose, or --parent whose purpose it takes\n')
    return exitCodes.usage
  }
  const compact = await sign({ ...options, purpose }, { config, parent })
  const verified = await verifyAsSidecar(compact, config)
  if (isDenial(verified)) {
    process.stderr.write(`The grant would be refused: ${verified.code}: ${verified.detail}\n`)
    return exitCodes.failed
  }
  const { txn, jti, expiresAtMs } = verified.leaf
  const summary = `task ${txn}, grant ${jti}, until ${new Date(expiresAtMs).toISOString()}\n`
  if (options.print) {
    process.stdout.write(`${compact}\n`)
    return exitCodes.ok
  }
  if (options.out !== undefined) {
    await writeFile(options.out, `${compact}\n`, { mode: 0o600 })
    process.stdout.write(`written to ${options.out}: ${summary}`)
    return exitCodes.ok
  }
  await withGrantStore(config, (store) => store.put(txn, { txn, compact, expiresAtMs }))
  process.stdout.write(`stored: ${summary}`)
  return exitCodes.ok
}

/** The grant that the new one is to hang on, or why it cannot. */
async function findParent(txn: string, config: Config): Promise<Grant | string> {
  const compact = await withGrantStore(config, (store) => store.get(txn))
  if (compact === undefined) return `No grant of the parent ${printable(txn)} is stored`
  const verified = await verifyAsSidecar(compact, config)
  if (!isDenial(verified)) return verified.leaf
  return `The parent ${printable(txn)} would be refused: ${verified.code}: ${verified.detail}`
}

async function sign(
  options: GrantOptions & { readonly purpose: string },
  { config, parent }: { readonly config: Config; readonly parent: Grant | undefined },
): Promise<string> {
  const { delegateTo, maxDepth } = options
  const iat = Math.floor(systemClock.now() / 1000)
  const claims: GrantClaims = {
    iss: options.iss ?? onlyApprover(config),
    sub: options.agent,
    aud: audienceOf(config),
    jti: `grant-${crypto.randomUUID()}`,
    txn: options.txn,
    iat,
    exp: iat + Math.floor((options.ttl ?? defaultTtl(iat, parent)) / 1000),
    purpose: options.purpose,
    ...(options.text !== undefined && { purpose_text: options.text }),
    sensitivity: options.sensitivity ?? parent?.sensitivity ?? 'internal',
    authorization_details: [...options.allow],
    ...(parent?.onBehalfOf && { obo: parent.onBehalfOf }),
    ...(delegateTo && { delegation: { max_depth: maxDepth, to: [...delegateTo] } }),
    ...(parent && lineageBelow(parent)),
  }
  return signClaims(claims, { key: readPrivateKey(options.key), typ: grantTyp })
}

function defaultTtl(iat: number, parent: Grant | undefined): number {
  const remainingMs = (parent?.expiresAtMs ?? Infinity) - iat * 1000
  return Math.min(30 * 60_000, remainingMs)
}

function onlyApprover({ approvers }: Config): string {
  const [first, ...more] = approvers
  if (first && more.length === 0) return first.iss
  throw new TypeError('Expected --iss: the configuration has more than one approver')
}

function collectDestination(
  text: string,
  previous: GrantOptions['allow'] | undefined,
): GrantOptions['allow'] {
  const destination = destinationOf(text)
  if (destination) return [...(previous ?? []), destination]
  throw new InvalidArgumentError(
    'Expected "GET https://host/path/**", "mcp https://host/mcp tool" or "ws wss://host/path".',
  )
}

function ttl(text: string): number {
  const ms = parseDuration(text)
  if (ms !== undefined && ms >= 1000) return ms
  throw new InvalidArgumentError('Expected a duration such as 30m or 8h.')
}

function depth(text: string): number {
  if (/^[1-7]$/.test(text)) return Number(text)
  throw new InvalidArgumentError('Expected a number from 1 to 7.')
}
