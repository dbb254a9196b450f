import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { InvalidArgumentError, type Command } from 'commander'
import { isTornLine, splitLines } from '../audit/chain.ts'
import { describeRecord, fitsQuery, type AuditQuery } from '../audit/query.ts'
import { readRecord } from '../audit/read-record.ts'
import { exitCodes } from './exit-codes.ts'
import { printable } from './printable.ts'

/** `chaperone audit query <file...>`: the records that fit, line by line; it checks no chain. */
export function registerAuditQuery(audit: Command): void {
  audit
    .command('query')
    .description('print the records that fit all of the options; the chain is not checked')
    .argument('<file...>', 'audit logs')
    .option('--txn <id>', 'of this task')
    .option('--agent <spiffe id>', 'of this agent: decisions and revocations')
    .option('--rid <id>', 'of this revocation: itself, what it cut, what it refused')
    .option('--code <code>', 'refused or cut with this code')
    .option('--since <time>', 'not before: 2026-11-24T12:00:00Z', time)
    .option('--until <time>', 'before', time)
    .option('--json', 'print the lines as they are in the file', false)
    .action(async (files: string[], options: QueryOptions) => {
      process.exitCode = await query(files, options)
    })
}

interface QueryOptions extends Omit<AuditQuery, 'sinceMs' | 'untilMs'> {
  readonly since?: number
  readonly until?: number
  readonly json: boolean
}

async function query(files: readonly string[], options: QueryOptions): Promise<number> {
  let exit: number = exitCodes.ok
  for (const file of files) {
    try {
      if (!(await queryFile(file, options))) exit = exitCodes.failed
    } catch (error) {
      process.stderr.write(
        `${file}: ${error instanceof Error ? error.message : 'cannot be read'}\n`,
      )
      return exitCodes.fault
    }
  }
  return exit
}

/** Whether every line was a record. */
async function queryFile(file: string, options: QueryOptions): Promise<boolean> {
  const { since, until, json, ...facts } = options
  const wanted: AuditQuery = {
    ...facts,
    ...(since !== undefined && { sinceMs: since }),
    ...(until !== undefined && { untilMs: until }),
  }
  let unread = 0
  for await (const line of splitLines(createReadStream(file))) {
    const record = readRecord(line)
    if (!record) unread += isTornLine(line) ? 0 : 1
    else if (fitsQuery(record, wanted)) await print(json ? line : printable(describeRecord(record)))
  }
  if (unread > 0) process.stderr.write(`${file}: ${unread} lines are no records of this version\n`)
  return unread === 0
}

/** Waits for a slow reader: what fits may be more than memory holds. */
async function print(line: string): Promise<void> {
  if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain')
}

function time(text: string): number {
  const ms = Date.parse(text)
  // A bare date or a time without its zone would depend on where it is asked.
  if (!Number.isNaN(ms) && /T.*(Z|[+-]\d\d:\d\d)$/.test(text)) return ms
  throw new InvalidArgumentError('Expected a time such as 2026-11-24T12:00:00Z.')
}
