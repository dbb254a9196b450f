import { randomUUID } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { decodeJwt } from 'jose'
import { parseDuration } from '../../config/duration.ts'
import { formatProblem, loadConfig } from '../../config/load.ts'
import { readTextFile } from '../../config/read-text-file.ts'
import type { Config } from '../../config/schema.ts'
import type { GrantClaims } from '../../policy/grant.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { exitCodes } from '../exit-codes.ts'
import { printable } from '../printable.ts'
import { readPrivateKey, signClaims, type PrivateKey } from '../private-key.ts'
import { askStore } from '../store-options.ts'
import { serveCanary } from './canary-upstream.ts'
import { destinationsOf } from './destinations.ts'
import type { FlowKind } from './flows.ts'
import { writeMetricsFile } from './metrics-file.ts'
import { tableOf, type Budget, type DrillReport } from './report.ts'
import { runDrill } from './run-drill.ts'
import { userName } from '../user-name.ts'

/** `chaperone drill`: ends with 0 within the budget, with 5 over it, with 2 when the flows do not come to life. */
export function registerDrill(program: Command): void {
  const command = program
    .command('drill')
    .description('revoke a canary task with live flows through real sidecars, and measure')
    .requiredOption('-t, --target <url...>', 'route of a sidecar: http://127.0.0.1:15080/api')
    .requiredOption('-k, --key <path>', 'private JWK or JWK Set of the approver')
    .requiredOption('--svid <path>', 'file with the JWT-SVID of the agent')
    .option('-c, --config <path>', 'configuration of the sidecars', 'chaperone.yaml')
    .option('--iss <authority>', 'the approver; default: the only one of the configuration')
    .option('--purpose <code>', 'purpose of the two grants', 'drill')
    .option('--by <name>', 'who', userName())
    .option('-o, --out <path>', 'write the report, with a signature of the key')
    .option(
      '--metrics-file <path>',
      'write the result as Prometheus text, whole or not at all, also when the drill fails',
    )
    .option('--serve <host:port>', 'be the upstream behind the targets while the drill runs')
    .option('--json', 'print the report as JSON', false)
  for (const [name, path] of Object.entries(defaultPaths)) {
    command.option(`--${name}-path <path>`, `after the target, for ${name}`, path)
  }
  command
    .addOption(budgetOption('--budget-refusal <duration>', 50))
    .addOption(budgetOption('--budget-cut <duration>', 250))
    .action(async (options: DrillOptions) => {
      process.exitCode = await metered(options)
    })
}

type PathOptions = { readonly [kind in FlowKind as `${kind}Path`]: string }

interface DrillOptions extends PathOptions {
  readonly target: readonly string[]
  readonly key: string
  readonly svid: string
  readonly config: string
  readonly iss?: string
  readonly purpose: string
  readonly by: string
  readonly out?: string
  readonly metricsFile?: string
  readonly serve?: string
  readonly json: boolean
  readonly budgetRefusal: number
  readonly budgetCut: number
}

const defaultPaths: Readonly<Record<FlowKind, string>> = {
  poll: '/',
  sse: '/sse',
  websocket: '/ws',
  download: '/download',
  upload: '/upload',
}
const grantTtlSeconds = 300
/** The record outlives the grants, whatever the clocks say, and then it is gone. */
const recordTtlMs = 2 * grantTtlSeconds * 1000
const maxSvidBytes = 16_384

/** The metrics tell of every drill, so that one that could not run is seen like one that went wrong. */
async function metered(options: DrillOptions): Promise<number> {
  const beganMs = systemClock.monotonic()
  let report: DrillReport | undefined
  const tell = async (): Promise<void> => {
    const durationMs = systemClock.monotonic() - beganMs
    const result = { report, endedAtMs: systemClock.now(), durationMs }
    if (options.metricsFile !== undefined) await writeMetricsFile(options.metricsFile, result)
  }
  try {
    const code = await drill(options, (measured) => (report = measured))
    await tell()
    return code
  } catch (error) {
    // Why the drill failed is what the operator has to read.
    await tell().catch(() => undefined)
    throw error
  }
}

async function drill(options: DrillOptions, tell: (report: DrillReport) => void): Promise<number> {
  const loaded = loadConfig(options.config)
  if (!loaded.ok) {
    for (const problem of loaded.problems) process.stderr.write(`${formatProblem(problem)}\n`)
    return exitCodes.badConfig
  }
  const key = readPrivateKey(options.key)
  const report = await measure(options, { config: loaded.config, key })
  tell(report)
  if (options.out !== undefined) {
    const sig = await signClaims({ report }, { key, typ: 'drill-report+jwt' })
    await writeFile(options.out, `${JSON.stringify({ ...report, sig }, null, 2)}\n`)
  }
  const lines = options.json ? [JSON.stringify(report)] : tableOf(report).map(printable)
  process.stdout.write(`${lines.join('\n')}\n`)
  return report.verdict === 'within-budget' ? exitCodes.ok : exitCodes.overBudget
}

interface Context {
  readonly config: Config
  readonly key: PrivateKey
}

async function measure(options: DrillOptions, { config, key }: Context): Promise<DrillReport> {
  const { revocation, trustDomain } = config
  if (revocation.source !== 'redis') {
    throw new TypeError('revocation.source is embedded: there is no store to revoke in')
  }
  const { redis } = revocation
  const svid = readTextFile(options.svid, { maxBytes: maxSvidBytes }).trim()
  const paths = pathsOf(options)
  const destinations = destinationsOf(config, { targets: options.target, paths })
  const headersOf = async (txn: string): Promise<Record<string, string>> => {
    const claims = grantClaims(txn, { options, config, svid, destinations })
    const grant = await signClaims(claims, { key, typ: 'task-grant+jwt' })
    return { authorization: `Bearer ${svid}`, 'task-grant': grant }
  }
  const { serve } = options
  await using _canary = serve === undefined ? undefined : await serveCanary(serve, paths)
  const id = randomUUID()
  const canaryTxn = `drill-${id}-canary`
  await using committer = createRedisCommitter({ redis, trustDomain, clock: systemClock })
  // The connection is made before the clock runs.
  await askStore(redis, () => committer.list(1))
  return await runDrill({
    targets: options.target,
    paths,
    canary: await headersOf(canaryTxn),
    sibling: await headersOf(`drill-${id}-sibling`),
    draft: {
      rid: `drill-${id}`,
      op: 'revoke',
      subject: `task:${canaryTxn}`,
      reason: 'drill',
      by: options.by,
      expiresAtMs: systemClock.now() + recordTtlMs,
    },
    commit: (draft) => askStore(redis, () => committer.commit(draft)),
    budget: budgetOf(options),
  })
}

interface GrantFacts extends Pick<Context, 'config'> {
  readonly options: DrillOptions
  readonly svid: string
  readonly destinations: GrantClaims['authorization_details']
}

function grantClaims(
  txn: string,
  { options, config, svid, destinations }: GrantFacts,
): Record<string, unknown> {
  const { audience, trustDomain, approvers } = config
  const iat = Math.floor(systemClock.now() / 1000)
  const iss = options.iss ?? (approvers.length === 1 ? approvers[0]?.iss : undefined)
  if (iss === undefined) throw new TypeError('Expected --iss: more than one approver is configured')
  return {
    iss,
    sub: agentOf(svid),
    aud: audience ?? `spiffe://${trustDomain}/chaperone`,
    jti: `grant-${randomUUID()}`,
    txn,
    iat,
    exp: iat + grantTtlSeconds,
    purpose: options.purpose,
    sensitivity: 'internal',
    authorization_details: destinations,
  }
}

/** Not verified here: the sidecars do. */
function agentOf(svid: string): string {
  try {
    const { sub } = decodeJwt(svid)
    if (sub !== undefined) return sub
  } catch {
    // Said below: the library's words would quote the token.
  }
  throw new TypeError('--svid: Expected a file with a JWT-SVID')
}

function pathsOf(options: PathOptions): Record<FlowKind, string> {
  return {
    poll: options.pollPath,
    sse: options.ssePath,
    websocket: options.websocketPath,
    download: options.downloadPath,
    upload: options.uploadPath,
  }
}

function budgetOf({ budgetRefusal, budgetCut }: DrillOptions): Budget {
  return { refusal_ms: budgetRefusal, cut_ms: budgetCut }
}

function budgetOption(flags: string, ms: number): Option {
  return new Option(flags, 'over it, this ends with 5').default(ms, `${ms}ms`).argParser((text) => {
    const value = parseDuration(text)
    if (value !== undefined) return value
    throw new InvalidArgumentError('Expected a duration such as 50ms.')
  })
}
