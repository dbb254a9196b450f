import { writeFile } from 'node:fs/promises'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { decodeJwt, type JWTPayload } from 'jose'
import { parseDuration } from '../config/duration.ts'
import { formatProblem, loadConfig } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { isDenial } from '../policy/denial.ts'
import { verifyGrant, type GrantClaims } from '../policy/grant.ts'
import { sensitivities, type Denial, type Grant } from '../policy/types.ts'
import { readApprovers } from '../proxy/snapshot.ts'
import { systemClock } from '../proxy/system-clock.ts'
import type { GrantStore } from '../revocation/grant-store.ts'
import { createRedisGrantStore } from '../revocation/redis-grant-store.ts'
import { destinationOf } from './destination-option.ts'
import { exitCodes } from './exit-codes.ts'
import { printable } from './printable.ts'
import { readPrivateKey, signClaims } from './private-key.ts'
import { askStore } from './store-options.ts'

/** `chaperone task grant|show|ls`: what the approver signs, and what the store holds. */
export function registerTask(program: Command): void {
  const task = program.command('task').description('sign, show and list task grants')
  registerGrant(task)
  task
    .command('show')
    .description('show the grant of a task, and whether it would be accepted')
    .argument('<txn>', 'the task')
    .option('-c, --config <path>', 'configuration file', 'chaperone.yaml')
    .option('--json', 'print JSON', false)
    .action(async (txn: string, options: { config: string; json: boolean }) => {
      process.exitCode = await show(txn, options)
    })
  task
    .command('ls')
    .description('list the stored grants, newest first')
    .option('-c, --config <path>', 'configuration file', 'chaperone.yaml')
    .option('-n, --limit <count>', 'at most so many', '100')
    .option('--json', 'one JSON object per line', false)
    .action(async (options: { config: string; limit: string; json: boolean }) => {
      process.exitCode = await list(options)
    })
}

interface GrantOptions {
  readonly config: string
  readonly key: string
  readonly iss?: string
  readonly agent: string
  readonly txn: string
  readonly purpose: string
  readonly text?: string
  readonly sensitivity: Grant['sensitivity']
  readonly ttl: number
  readonly allow: readonly GrantClaims['authorization_details'][number][]
  readonly out?: string
  readonly print: boolean
}

function registerGrant(task: Command): void {
  task
    .command('grant')
    .description('sign a grant with the approver key, check it as a sidecar would, and store it')
    .requiredOption('-k, --key <path>', 'private JWK or JWK Set of the approver')
    .requiredOption('--agent <spiffe id>', 'who may act')
    .requiredOption('--txn <id>', 'the task')
    .requiredOption('--purpose <code>', 'one purpose, such as invoice-check')
    .requiredOption(
      '--allow <destination...>',
      '"GET,POST https://host/path/**", "mcp https://host/mcp tool_a,tool_*" or "ws wss://host/path"',
      collectDestination,
    )
    .option('--text <text>', 'the purpose in words')
    .addOption(
      new Option('--sensitivity <class>', 'highest class of data')
        .choices(sensitivities)
        .default('internal'),
    )
    .addOption(
      new Option('--ttl <duration>', 'how long').default(30 * 60_000, '30m').argParser(ttl),
    )
    .option('--iss <authority>', 'the approver; default: the only one of the configuration')
    .option('-c, --config <path>', 'configuration file', 'chaperone.yaml')
    .option('-o, --out <path>', 'write the compact grant to a file instead of the store')
    .option('--print', 'print the compact grant instead of storing it', false)
    .action(async (options: GrantOptions) => {
      process.exitCode = await grant(options)
    })
}

async function grant(options: GrantOptions): Promise<number> {
  const config = load(options.config)
  if (!config) return exitCodes.badConfig
  const compact = await sign(options, config)
  const verified = await verify(compact, config)
  if (isDenial(verified)) {
    process.stderr.write(`The grant would be refused: ${verified.code}: ${verified.detail}\n`)
    return exitCodes.failed
  }
  const { txn, jti, expiresAtMs } = verified
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
  await withStore(config, (store) => store.put(txn, { txn, compact, expiresAtMs }))
  process.stdout.write(`stored: ${summary}`)
  return exitCodes.ok
}

async function sign(options: GrantOptions, config: Config): Promise<string> {
  const iat = Math.floor(systemClock.now() / 1000)
  const claims: Record<string, unknown> = {
    iss: options.iss ?? onlyApprover(config),
    sub: options.agent,
    aud: audienceOf(config),
    jti: `grant-${crypto.randomUUID()}`,
    txn: options.txn,
    iat,
    exp: iat + Math.floor(options.ttl / 1000),
    purpose: options.purpose,
    ...(options.text !== undefined && { purpose_text: options.text }),
    sensitivity: options.sensitivity,
    authorization_details: options.allow,
  }
  return signClaims(claims, { key: readPrivateKey(options.key), typ: 'task-grant+jwt' })
}

async function show(
  txn: string,
  options: { readonly config: string; readonly json: boolean },
): Promise<number> {
  const config = load(options.config)
  if (!config) return exitCodes.badConfig
  const compact = await withStore(config, (store) => store.get(txn))
  if (compact === undefined) {
    process.stderr.write(`No grant of task ${printable(txn)} is stored\n`)
    return exitCodes.failed
  }
  const verified = await verify(compact, config)
  const state = isDenial(verified) ? `${verified.code}: ${verified.detail}` : 'valid'
  // The claims of a grant that does not verify are shown too: the operator wants to know what is wrong with it.
  const claims = claimsOf(compact)
  process.stdout.write(`${JSON.stringify({ state, claims }, null, options.json ? 0 : 2)}\n`)
  return isDenial(verified) ? exitCodes.failed : exitCodes.ok
}

async function list({
  config: path,
  limit,
  json,
}: {
  config: string
  limit: string
  json: boolean
}): Promise<number> {
  const config = load(path)
  if (!config) return exitCodes.badConfig
  const most = Number(limit)
  if (!Number.isInteger(most) || most < 1 || most > 10_000) {
    process.stderr.write('Expected a limit from 1 to 10000\n')
    return exitCodes.usage
  }
  const grants = await withStore(config, (store) => store.list(most))
  for (const { txn, compact, expiresAtMs } of grants) {
    const { sub, purpose } = claimsOf(compact) ?? {}
    const expires = new Date(expiresAtMs).toISOString()
    const words = [txn, sub ?? 'unreadable grant', purpose ?? '-', `until ${expires}`]
    const line = json
      ? JSON.stringify({ txn, sub, purpose, expires })
      : printable(words.map(String).join('  '))
    process.stdout.write(`${line}\n`)
  }
  return exitCodes.ok
}

/** Without verification: for the eye of the operator. Undefined when the store holds something else. */
function claimsOf(compact: string): JWTPayload | undefined {
  try {
    return decodeJwt(compact)
  } catch {
    return undefined
  }
}

function verify(compact: string, config: Config): Promise<Grant | Denial> {
  return verifyGrant(compact, {
    approvers: readApprovers(config),
    audience: audienceOf(config),
    clockSkewMs: config.identity.clockSkew,
    maxTtlMs: config.grants.maxTtl,
    ...(config.grants.purposes && { purposes: config.grants.purposes }),
    nowMs: systemClock.now(),
  })
}

function load(path: string): Config | undefined {
  const loaded = loadConfig(path)
  if (loaded.ok) return loaded.config
  for (const problem of loaded.problems) process.stderr.write(`${formatProblem(problem)}\n`)
  return undefined
}

async function withStore<T>(
  { revocation, trustDomain }: Config,
  ask: (store: GrantStore) => Promise<T>,
): Promise<T> {
  if (revocation.source !== 'redis') {
    throw new TypeError(
      'revocation.source is embedded: there is no store. Use --print or --out, and send it as Task-Grant or as the grant file',
    )
  }
  const { redis } = revocation
  await using store = createRedisGrantStore({ redis, trustDomain, clock: systemClock })
  return await askStore(redis, () => ask(store))
}

function onlyApprover({ approvers }: Config): string {
  const [first, ...more] = approvers
  if (first && more.length === 0) return first.iss
  throw new TypeError('Expected --iss: the configuration has more than one approver')
}

function audienceOf({ audience, trustDomain }: Config): string {
  return audience ?? `spiffe://${trustDomain}/chaperone`
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
