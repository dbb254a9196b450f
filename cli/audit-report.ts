import { createReadStream } from 'node:fs'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { readVerified } from '../audit/read-file.ts'
import { accountOf, type Account } from '../audit/report.ts'
import type { RevocationReport } from '../audit/report-summary.ts'
import { parseDuration } from '../config/duration.ts'
import { exitCodes } from './exit-codes.ts'
import { printable } from './printable.ts'

/** `chaperone audit report <file...> --revocation <rid>`: ends with 0 only for an account that is closed and clean. */
export function registerAuditReport(audit: Command): void {
  audit
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
    .option('--json', 'print JSON', false)
    .action(async (files: string[], options: ReportOptions) => {
      process.exitCode = await reportOn(files, options)
    })
}

interface ReportOptions {
  readonly revocation: string
  readonly restarts?: boolean
  readonly heartbeat: number
  readonly json: boolean
}

async function reportOn(files: readonly string[], options: ReportOptions): Promise<number> {
  const account = accountOf(options.revocation, { heartbeatMs: options.heartbeat })
  for (const file of new Set(files)) {
    try {
      await readInto(account, { file, restarts: options.restarts ?? false })
    } catch (error) {
      const why = error instanceof Error ? error.message : 'cannot be read'
      process.stderr.write(`${file}: ${why}\n`)
      return exitCodes.fault
    }
  }
  const result = account.report()
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
  { file, restarts }: { readonly file: string; readonly restarts: boolean },
): Promise<void> {
  const reading = account.file(file)
  const chain = await readVerified(createReadStream(file), {
    restarts,
    use: ({ record }) => (record ? reading.add(record) : reading.unread()),
  })
  reading.end(chain)
}

function linesOf(report: RevocationReport): readonly string[] {
  const { rid, op, subject, by, reason, recorded_at, expires_at, first_refusal } = report
  const refused = first_refusal
    ? `first after ${first_refusal.after_ms} ms, decision ${first_refusal.decision_id}, sidecar ${first_refusal.instance}`
    : 'nothing tried'
  return [
    `revocation  ${rid}  ${op} ${subject}, by ${by}: ${reason}`,
    `recorded    ${recorded_at}${expires_at === undefined ? '' : `, ends ${expires_at}`}`,
    ...report.sidecars.map(
      ({ instance, after_ms, exchanges_cut, until, file }) =>
        `in force    after ${after_ms} ms, ${exchanges_cut} cut, on record until ${until}, sidecar ${instance}, ${file}`,
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

function cutLines({ cut, bytes_up, bytes_down }: RevocationReport): readonly string[] {
  if (cut.length === 0) return ['cut         nothing was in flight']
  return [
    ...cut.map(
      ({ how, count, after_ms: { p50, max } }) =>
        `cut         ${count} by ${how}, p50 ${p50} ms, max ${max} ms`,
    ),
    `bytes       ${bytes_up} up, ${bytes_down} down before the cut`,
  ]
}

function attemptsText({ attempts }: RevocationReport): string {
  const { decisions, automatic_retries: retries, by_retry_count: counts } = attempts
  const byCount = Object.entries(counts)
    .filter(([retry]) => retry !== '0')
    .map(([retry, count]) => `retry ${retry}: ${count}`)
  const told = byCount.length === 0 ? '' : ` (${byCount.join(', ')})`
  return `${decisions} new decisions, ${retries} automatic retries${told}, all refused`
}

function interval(text: string): number {
  const ms = parseDuration(text)
  if (ms !== undefined && ms >= 1000) return ms
  throw new InvalidArgumentError('Expected a duration such as 60s.')
}
