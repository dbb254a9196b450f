import { randomUUID } from 'node:crypto'
import type { Command } from 'commander'
import { liftAudience, liftTyp, maxLifted, type Lift, type LiftClaims } from '../policy/lift.ts'
import { parseSubject } from '../policy/subject.ts'
import type { Revocation } from '../policy/types.ts'
import { liftVerifier } from '../proxy/lift-verifier.ts'
import { systemClock } from '../proxy/system-clock.ts'
import { createRedisCommitter } from '../revocation/redis-committer.ts'
import { durableJson, durableLine, durableOption, isDurable } from './durability-report.ts'
import { exitCodes } from './exit-codes.ts'
import { printable } from './printable.ts'
import { readPrivateKey, signClaims } from './private-key.ts'
import { readInForce } from './read-in-force.ts'
import { reason } from './reason-option.ts'
import {
  addStoreOptions,
  askStore,
  readStoreOptions,
  type Store,
  type StoreOptions,
} from './store-options.ts'

interface LiftOptions extends StoreOptions {
  readonly key: string
  readonly reason: string
  readonly operator?: string
  readonly durable: number
  readonly json: boolean
}

/** `chaperone lift <rid...>` and `chaperone resume <subject>`: records end before they expire, by a signature. */
export function registerLift(program: Command): void {
  const lift = program
    .command('lift')
    .description('end records before they expire; a record that nobody named stays in force')
    .argument('<rid...>', 'the records, as "chaperone revocations" shows them')
  addLiftOptions(lift).action(async (rids: readonly string[], options: LiftOptions) => {
    process.exitCode = await liftRecords(rids, options)
  })
  const resume = program
    .command('resume')
    .description('end every pause on exactly this subject; a revoke or quarantine stays in force')
    .argument('<subject>', 'task:<txn>, agent:<spiffe id>, ...')
  addLiftOptions(resume).action(async (subject: string, options: LiftOptions) => {
    process.exitCode = await resumeSubject(subject, options)
  })
}

function addLiftOptions(command: Command): Command {
  return addStoreOptions(
    command
      .requiredOption('-k, --key <path>', 'private JWK of an operator of the configuration')
      .requiredOption('-r, --reason <text>', 'why: stands in the lift', reason)
      .option('--operator <name>', 'whose key it is (default: the only one of the configuration)')
      .addOption(durableOption())
      .option('--json', 'print JSON', false),
  )
}

async function liftRecords(rids: readonly string[], options: LiftOptions): Promise<number> {
  const store = readStoreOptions(options)
  const wanted = new Set(rids)
  const records = await readInForce(store, ({ rid }) => wanted.has(rid))
  const unknown = [...wanted].filter((rid) => !records.some((record) => record.rid === rid))
  if (unknown.length > 0) {
    return fail(`No record ${unknown.map(printable).join(', ')} is in force: nothing was lifted`)
  }
  return commitLifts(records, { store, options })
}

async function resumeSubject(text: string, options: LiftOptions): Promise<number> {
  const subject = parseSubject(text)
  if (subject === undefined) {
    process.stderr.write('Expected a subject such as task:T-1, agent:spiffe://td/agent/a or all\n')
    return exitCodes.usage
  }
  const store = readStoreOptions(options)
  const onSubject = await readInForce(store, (record) => record.subject === subject)
  const kept = onSubject.filter(({ op }) => op !== 'pause')
  for (const { op, rid } of kept) {
    process.stderr.write(`${subject} stays refused: ${op} ${printable(rid)} is no pause\n`)
  }
  const pauses = onSubject.filter(({ op }) => op === 'pause')
  if (pauses.length === 0) return fail(`No pause on ${subject} is in force: nothing was lifted`)
  return commitLifts(pauses, { store, options })
}

interface Request {
  readonly store: Store
  readonly options: LiftOptions
}

async function commitLifts(records: readonly Revocation[], request: Request): Promise<number> {
  const { store, options } = request
  const lifts: Lift[] = []
  for (let start = 0; start < records.length; start += maxLifted) {
    lifts.push(await sign(records.slice(start, start + maxLifted), request))
  }
  await using committer = createRedisCommitter({ ...store, clock: systemClock })
  let code: number = exitCodes.ok
  for (const lift of lifts) {
    const { epoch, atMs } = await askStore(store.redis, () => committer.commitLift(lift), {
      advice: 'Nothing is confirmed. Repeat it: a lift that is there already changes nothing.',
    })
    const at = new Date(atMs).toISOString()
    if (!options.json) print(liftedLines(lift, { records, epoch, at }))
    const durability = await committer.durability({ atLeast: options.durable })
    if (!isDurable(durability, options.durable)) code = exitCodes.unconfirmed
    const { rid, lifts: rids, by } = lift
    const durable = durableJson(durability)
    print(
      options.json
        ? [JSON.stringify({ rid, lifts: rids, by, epoch, recorded_at: at, durable })]
        : [durableLine(durability, options.durable)],
    )
  }
  return code
}

function liftedLines(
  { rid, lifts, by: operator }: Lift,
  recorded: {
    readonly records: readonly Revocation[]
    readonly epoch: string
    readonly at: string
  },
): readonly string[] {
  const { records, epoch, at } = recorded
  return [
    ...records
      .filter((record) => lifts.includes(record.rid))
      .map(
        ({ rid: lifted, op, subject, reason: why, by }) =>
          `lifted  ${op} ${subject} "${printable(why)}" by ${printable(by)}  ${printable(lifted)}`,
      ),
    `recorded at ${at}, lift ${rid} by ${printable(operator)}, position ${epoch}`,
  ]
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** Signs, and reads the signature back as a sidecar would: a lift that none accepts is not worth recording. */
async function sign(records: readonly Revocation[], { store, options }: Request): Promise<Lift> {
  const { trustDomain, operators } = store
  const claims: LiftClaims = {
    iss: options.operator ?? onlyOperator(store),
    aud: liftAudience(trustDomain),
    jti: randomUUID(),
    iat: Math.floor(systemClock.now() / 1000),
    op: 'lift',
    lifts: [...new Set(records.map(({ rid }) => rid))],
    reason: options.reason,
  }
  const compact = await signClaims(
    { ...claims },
    { key: readPrivateKey(options.key), typ: liftTyp },
  )
  if (operators) {
    const verified = await liftVerifier({ operators, trustDomain })(compact)
    if (!verified.ok) {
      throw new TypeError(
        `No sidecar of this configuration would accept the lift: ${verified.reason}. Nothing was lifted`,
      )
    }
  }
  const { iss: by, jti: rid, lifts, reason: why, iat } = claims
  return { rid, by, lifts, reason: why, atMs: iat * 1000, compact }
}

function onlyOperator({ operators }: Store): string {
  const [first, ...more] = operators ?? []
  if (first && more.length === 0) return first.name
  if (operators?.length === 0) {
    throw new TypeError('The configuration names no operators: nothing can be lifted before expiry')
  }
  throw new TypeError('Expected --operator: whose key it is, as the configuration names it')
}

function fail(message: string): number {
  process.stderr.write(`${message}\n`)
  return exitCodes.failed
}
