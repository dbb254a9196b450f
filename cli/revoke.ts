import { randomUUID } from 'node:crypto'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { parseDuration } from '../config/duration.ts'
import { parseSubject } from '../policy/subject.ts'
import { systemClock } from '../proxy/system-clock.ts'
import type { RevocationOp } from '../policy/types.ts'
import { awaitEnforcement, type AwaitOptions, type Enforcement } from '../revocation/enforcement.ts'
import type { Committed, RevocationDraft } from '../revocation/feed.ts'
import { createPresenceReader } from '../revocation/presence-reader.ts'
import { createRedisCommitter, type RedisCommitter } from '../revocation/redis-committer.ts'
import { showBlastRadius } from './blast-radius.ts'
import { durableLine, durableOption, isDurable } from './durability-report.ts'
import { denyInFile } from './deny-file.ts'
import { enforcementLines, isConfirmed, recordedJson, recordedLine } from './enforcement-report.ts'
import { exitCodes } from './exit-codes.ts'
import { reason } from './reason-option.ts'
import {
  addStoreOptions,
  askStore,
  readStoreOptions,
  type Store,
  type StoreOptions,
} from './store-options.ts'
import { isTyped, isWide } from './wide-subject.ts'
import { userName } from './user-name.ts'

interface RevokeOptions extends StoreOptions {
  readonly reason: string
  readonly by: string
  readonly expires: number
  readonly rid?: string
  readonly file?: string
  readonly wait: number
  readonly durable: number
  readonly dryRun: boolean
  readonly yes: boolean
  readonly json: boolean
}

const verbs: readonly { readonly op: RevocationOp; readonly description: string }[] = [
  {
    op: 'revoke',
    description:
      'end a task, agent, grant, approver, upstream or tool: every call refused, every stream cut',
  },
  { op: 'pause', description: 'suspend it: refused until the record expires' },
  { op: 'quarantine', description: 'isolate an agent: refused whatever its task' },
]

/** `chaperone revoke|pause|quarantine <subject>`: recorded, then in force on every sidecar that follows the store. */
export function registerRevoke(program: Command): void {
  for (const { op, description } of verbs) {
    const command = program
      .command(op)
      .description(description)
      .argument(
        '<subject>',
        'task:<txn>, agent:<spiffe id>, grant:<iss>#<jti>, ..., or a kind followed by its value',
      )
      .argument('[value]', 'the value, when the subject is a kind: revoke task T-1')
      .requiredOption(
        '-r, --reason <text>',
        'why: stands in every record and in the answer to the agent',
        reason,
      )
      .option('--by <name>', 'who', userName())
      .addOption(
        new Option(
          '--expires <duration>',
          'after which the record ends by itself, such as 8h; 0 is never',
        )
          .default(0, 'never')
          .argParser(duration),
      )
      .option('--rid <id>', 'id of the record: the same one again is recorded once')
      .option(
        '--yes',
        'do not ask for wide subjects (all, agent-prefix, trust-domain, upstream, approver)',
        false,
      )
      .addOption(
        new Option(
          '--wait <duration>',
          'how long every sidecar may take to confirm before this ends with 4; 0 is not to ask',
        )
          .default(3_000, '3s')
          .argParser(duration),
      )
      .addOption(durableOption())
      .option('--dry-run', 'record nothing: show what it would cover', false)
      .option('--json', 'print JSON', false)
    if (op === 'revoke') command.addOption(fileOption())
    addStoreOptions(command).action(
      async (first: string, second: string | undefined, options: RevokeOptions) => {
        process.exitCode = await revoke(op, { first, second, options })
      },
    )
  }
}

/** What a deny file cannot say: it knows no expiry, no id and nobody who confirms. */
function fileOption(): Option {
  return new Option(
    '--file <path>',
    'put it into this deny file instead of the store, for when that is not there',
  ).conflicts(['redis', 'trustDomain', 'config', 'rid', 'expires', 'wait', 'durable', 'dryRun'])
}

interface Request {
  readonly first: string
  readonly second: string | undefined
  readonly options: RevokeOptions
}

async function revoke(op: RevocationOp, { first, second, options }: Request): Promise<number> {
  const subject = parseSubject(second === undefined ? first : `${first}:${second}`)
  if (subject === undefined) {
    process.stderr.write(
      'Expected a subject such as task:T-1, agent:spiffe://td/agent/a, upstream:github or all\n',
    )
    return exitCodes.usage
  }
  const isMeant = async (): Promise<boolean> =>
    !isWide(subject) || options.yes || (await isTyped(subject, op))
  if (options.file !== undefined) {
    if (!(await isMeant())) return exitCodes.usage
    print([await denyInFile(options.file, { ...options, subject })])
    return exitCodes.ok
  }
  const store = readStoreOptions(options)
  if (options.dryRun) return await showBlastRadius(store, { subject, json: options.json })
  if (!(await isMeant())) return exitCodes.usage
  const draft: RevocationDraft = {
    rid: options.rid ?? randomUUID(),
    op,
    subject,
    reason: options.reason,
    by: options.by,
    expiresAtMs: options.expires === 0 ? 0 : systemClock.now() + options.expires,
  }
  await using committer = createRedisCommitter({ ...store, clock: systemClock })
  const committedFromMs = systemClock.monotonic()
  const committed = await commit(committer, { store, draft })
  const recorded = { draft, committed }
  // What is recorded is said at once: an operator who breaks off the wait must know it.
  if (!options.json) print([recordedLine(recorded)])
  const { rid } = draft
  const { wait: waitMs, durable } = options
  const [durability, enforcement] = await Promise.all([
    committer.durability({ atLeast: durable }),
    waitMs === 0 ? undefined : confirmations(store, { rid, committed, committedFromMs, waitMs }),
  ])
  print(
    options.json
      ? recordedJson({ ...recorded, durability, enforcement })
      : [
          durableLine(durability, durable),
          ...(enforcement ? enforcementLines(enforcement, committed.atMs) : [unawaited]),
          proofLine(rid),
        ],
  )
  const confirmed = enforcement === undefined || isConfirmed(enforcement)
  return confirmed && isDurable(durability, durable) ? exitCodes.ok : exitCodes.unconfirmed
}

const unawaited =
  'Every sidecar of this store enforces it when it hears of it, within milliseconds; one that cannot hear fails closed by itself.'

/** What was tried since is known to the sidecars alone: their audit logs have it. */
function proofLine(rid: string): string {
  return `proof     chaperone audit report <audit log of each sidecar> --revocation ${rid}`
}

async function confirmations(
  store: Store,
  options: Omit<AwaitOptions, 'clock'>,
): Promise<Enforcement> {
  await using reader = createPresenceReader(store)
  const waiting = { ...options, clock: systemClock }
  return await askStore(store.redis, () => awaitEnforcement(reader, waiting), {
    advice: `It is recorded as ${options.rid} at position ${options.committed.epoch}; who enforces it is not known. Ask with: chaperone status`,
  })
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`)
}

async function commit(
  committer: RedisCommitter,
  { store, draft }: { readonly store: Store; readonly draft: RevocationDraft },
): Promise<Committed> {
  // After a fault it may or may not have been recorded.
  return await askStore(store.redis, () => committer.commit(draft), {
    advice: `Nothing is confirmed. Repeat it with --rid ${draft.rid}: it is recorded once.`,
  })
}

function duration(text: string): number {
  const ms = text === '0' ? 0 : parseDuration(text)
  if (ms !== undefined) return ms
  throw new InvalidArgumentError('Expected a duration such as 30m or 8h.')
}
