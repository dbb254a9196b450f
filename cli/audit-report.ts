import { createReadStream } from 'node:fs'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { checkSignatures, type SignatureCheck } from '../audit/checkpoint.ts'
import { readVerified } from '../audit/read-file.ts'
import { accountOf, type Account } from '../audit/report.ts'
import type { RevocationReport } from '../audit/report-summary.ts'
import { parseDuration } from '../config/duration.ts'
import { createPresenceReader } from '../revocation/presence-reader.ts'
import { readPublicKeys } from './read-public-keys.ts'
import { exitCodes } from './exit-codes.ts'
import { printable } from './printable.ts'
import { addStoreOptions, askStore, readStoreOptions, type StoreOptions } from './store-options.ts'

/** `chaperone audit report <file...> --revocation <rid>`: ends with 0 only for an account that is closed and clean. */
export function registerAuditReport(audit: Command): void {
  const command = audit
    .command('report')
    .description('the closed account of one revocation, from the files of all sidecars')
    .argument('<file...>', 'audit logs')
    .requiredOption('--revocation <rid>', 'id of the revocation')
    .option('--restarts', 'accept that a chain begins anew, as in collected standard output')
    .addOption(
      new Option('--heartbeat <duration>', 'how often the sidecars beat')
        .default(60_000, '60s')
        .argParser(interval),
    )
    .option('--key <jwks>', 'public JWK Set: check the signed checkpoints too')
    .option('--against-store', 'name the sidecars that enforce it and have no file here', false)
    .option('--json', 'print JSON', false)
  addStoreOptions(command).action(async (files: string[], options: ReportOptions) => {
    process.exitCode = await reportOn(files, options)
  })
}

interface ReportOptions extends StoreOptions {
  readonly revocation: string
  readonly restarts?: boolean
  readonly heartbeat: number
  readonly key?: string
  readonly againstStore: boolean
  readonly json: boolean
}

async function reportOn(files: readonly string[], options: ReportOptions): Promise<number> {
  const { restarts = false, key } = options
  const account = accountOf(options.revocation, { heartbeatMs: options.heartbeat })
  const keys = key === undefined ? undefined : readPublicKeys(key)
  for (const file of new Set(files)) {
    try {
      await readInto(account, { file, restarts, signatures: keys && checkSignatures(keys) })
    } catch (error) {
      const why = error instanceof Error ? error.message : 'cannot be read'
      process.stderr.write(`${file}: ${why}\n`)
      return exitCodes.fault
    }
  }
  const known = account.report()
  const acknowledged = known && options.againstStore ? await acknowledgedBy(known, options) : []
  const result = account.report({ acknowledged })
  if (!result) {
    process.stderr.write(`Revocation ${printable(options.revocation)} is on no record\n`)
    return exitCodes.failed
  }
  const text = options.json
    ? JSON.stringify(result)
    : linesOf(result)
        .map((line) => printable(line))
        .join('\n')
  process.stdout.write(`${text}\n`)
  return result.verdict === 'clean' ? exitCodes.ok : exitCodes.failed
}

async function readInto(
  account: Account,
  {
    file,
    restarts,
    signatures,
  }: {
    readonly file: string
    readonly restarts: boolean
    readonly signatures: SignatureCheck | undefined
  },
): Promise<void> {
  const reading = account.file(file)
  const chain = await readVerified(createReadStream(file), {
    restarts,
    use: async ({ place, record }) => {
      const checkpoint = record?.type === 'checkpoint' ? record : undefined
      await signatures?.add({ ...place, ...(checkpoint && { checkpoint }) })
      if (record) reading.add(record)
      else reading.unread()
    },
  })
  reading.end(chain, signatures?.report())
}

/** Who told the store that it enforces this record, and no other of its name. */
async function acknowledgedBy(
  { rid, recorded_at }: RevocationReport,
  options: StoreOptions,
): Promise<readonly string[]> {
  const store = readStoreOptions(options)
  const recordedAtMs = Date.parse(recorded_at)
  await using reader = createPresenceReader(store)
  const found = await askStore(store.redis, () => reader.acknowledgements(recordedAtMs))
  return found
    .filter((one) => one.rid === rid && one.recordedAtMs === recordedAtMs)
    .map(({ instance }) => instance)
}

function linesOf(report: RevocationReport): readonly string[] {
  const { rid, op, subject, by, reason, recorded_at, expires_at, first_refusal } = report
  const { recorded_epoch: epoch } = report
  const refused = first_refusal
    ? `first after ${first_refusal.after_ms} ms, decision ${first_refusal.decision_id}, sidecar ${first_refusal.instance}`
    : 'nothing tried'
  return [
    `revocation  ${rid}  ${op} ${subject}, by ${by}: ${reason}`,
    `recorded    ${recorded_at}${epoch === undefined ? '' : `, epoch ${epoch}`}${expires_at === undefined ? '' : `, ends ${expires_at}`}`,
    ...report.sidecars.map(
      ({ instance, after_ms, exchanges_cut, until, file }) =>
        `in force    after ${after_ms} ms, ${exchanges_cut} cut, on record until ${until}, sidecar ${instance}, ${file}`,
    ),
    ...report.lifted.map(
      (lift) =>
        `lifted      ${lift.at} by ${lift.by}: ${lift.reason}, lift ${lift.rid}, sidecar ${lift.instance}, ${lift.file}`,
    ),
    ...cutLines(report),
    `refused     ${refused}`,
    `attempts    ${attemptsText(report)}`,
    `acted after revocation: ${report.acted_count === 0 ? 'no' : `YES, ${report.acted_count} decisions`}`,
    ...report.acted.map(
      (one) =>
        `  ${one.ts}  ${one.method} ${one.path}  upstream ${one.upstream ?? '-'}, task ${one.txn ?? '-'}, decision ${one.decision_id}, ${one.file} seq ${one.seq}`,
    ),
    ...(report.gaps.length === 0 ? ['gaps        none'] : []),
    ...report.gaps.map(
      ({ kind, detail, file, open }) =>
        `gap         ${kind}: ${detail}, ${file}${open ? '' : ' (named only)'}`,
    ),
    `account     ${report.verdict}`,
  ]
}

function cutLines(report: RevocationReport): readonly string[] {
  const { cut, bytes_up, bytes_down, last_byte: last } = report

  if (cut.length === 0) return ['cut         nothing was in flight']
  return [
    ...cut.map(
      ({ how, count, after_ms: { p50, max } }) =>
        `cut         ${count} by ${how}, p50 ${p50} ms, max ${max} ms`,
    ),
    `bytes       ${bytes_up} up, ${bytes_down} down before the cut`,
    `last byte   up ${sinceText(last.up_ms)}, down ${sinceText(last.down_ms)}`,
  ]
}

/** Of the latest byte of all that was cut, against the record in force. */
function sinceText(ms: number | null): string {
  if (ms === null) return 'none'
  return ms > 0 ? `${ms} ms AFTER` : `${-ms} ms before`
}

function attemptsText({ attempts }: RevocationReport): string {
  const { decisions, repeated, automatic_retries: retries, by_retry_count: counts } = attempts
  const byCount = Object.entries(counts)
    .filter(([retry]) => retry !== '0')
    .map(([retry, count]) => `retry ${retry}: ${count}`)
  const told = byCount.length === 0 ? '' : ` (${byCount.join(', ')})`
  const again = repeated === 0 ? '' : ` (${repeated} the same operation again within 2 s)`
  return `${decisions} new decisions${again}, ${retries} automatic retries${told}, all refused`
}

function interval(text: string): number {
  const ms = parseDuration(text)
  if (ms !== undefined && ms >= 1000) return ms
  throw new InvalidArgumentError('Expected a duration such as 60s.')
}
