import { randomUUID } from 'node:crypto'
import { userInfo } from 'node:os'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { parseDuration } from '../config/duration.ts'
import { parseSubject } from '../policy/subject.ts'
import { systemClock } from '../proxy/system-clock.ts'
import type { RevocationOp } from '../policy/types.ts'
import type { Committed, RevocationDraft } from '../revocation/feed.ts'
import { createRedisCommitter } from '../revocation/redis-committer.ts'
import { exitCodes } from './exit-codes.ts'
import {
  addStoreOptions,
  askStore,
  readStoreOptions,
  type Store,
  type StoreOptions,
} from './store-options.ts'

interface RevokeOptions extends StoreOptions {
  readonly reason: string
  readonly by: string
  readonly expires: number
  readonly rid?: string
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
      .option('--by <name>', 'who', userInfo().username)
      .addOption(
        new Option(
          '--expires <duration>',
          'after which the record ends by itself, such as 8h; 0 is never',
        )
          .default(0, 'never')
          .argParser(expiry),
      )
      .option('--rid <id>', 'id of the record: the same one again is recorded once')
      .option(
        '--yes',
        'do not ask for wide subjects (all, agent-prefix, trust-domain, upstream, approver)',
        false,
      )
      .option('--json', 'print JSON', false)
    addStoreOptions(command).action(
      async (first: string, second: string | undefined, options: RevokeOptions) => {
        process.exitCode = await revoke(op, { first, second, options })
      },
    )
  }
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
  if (isWide(subject) && !options.yes) {
    process.stderr.write(`"${subject}" may cover many tasks. Add --yes when that is meant.\n`)
    return exitCodes.usage
  }
  const rid = options.rid ?? randomUUID()
  const { epoch, atMs } = await commit(readStoreOptions(options), {
    rid,
    op,
    subject,
    reason: options.reason,
    by: options.by,
    expiresAtMs: options.expires === 0 ? 0 : systemClock.now() + options.expires,
  })
  const at = new Date(atMs).toISOString()
  const line = options.json
    ? JSON.stringify({ rid, op, subject, epoch, recorded_at: at })
    : `recorded  ${op} ${subject} at ${at}, record ${rid}, position ${epoch}\nEvery sidecar of this store enforces it when it hears of it, within milliseconds; one that cannot hear fails closed by itself.`
  process.stdout.write(`${line}\n`)
  return exitCodes.ok
}

async function commit(store: Store, draft: RevocationDraft): Promise<Committed> {
  await using committer = createRedisCommitter({ ...store, clock: systemClock })
  // After a fault it may or may not have been recorded.
  return await askStore(store.redis, () => committer.commit(draft), {
    advice: `Nothing is confirmed. Repeat it with --rid ${draft.rid}: it is recorded once.`,
  })
}

function isWide(subject: string): boolean {
  return /^(all$|agent-prefix:|trust-domain:|upstream:|approver:)/.test(subject)
}

function reason(text: string): string {
  if (text.trim() !== '' && text.length <= 512 && !/\p{Cc}/u.test(text)) return text
  throw new InvalidArgumentError('Expected 1 to 512 characters without control characters.')
}

function expiry(text: string): number {
  const ms = text === '0' ? 0 : parseDuration(text)
  if (ms !== undefined) return ms
  throw new InvalidArgumentError('Expected a duration such as 30m or 8h.')
}
