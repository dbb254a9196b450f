import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { Option, type Command } from 'commander'
import { ocsfExport } from '../audit/ocsf.ts'
import { ocsfVersion } from '../audit/ocsf-base.ts'
import { readVerified } from '../audit/read-file.ts'
import { exitCodes } from './exit-codes.ts'

/** `chaperone audit export <file...> --format ocsf`: one event per line. 1 when a chain breaks: nothing after it is given. */
export function registerAuditExport(audit: Command): void {
  audit
    .command('export')
    .description(`print the records as events of another schema: OCSF ${ocsfVersion}, one per line`)
    .argument('<file...>', 'audit logs')
    .addOption(
      new Option('--format <format>', 'schema of the events')
        .choices(['ocsf'])
        .makeOptionMandatory(),
    )
    .option('--restarts', 'accept that the chain begins anew, as in collected standard output')
    .action(async (files: string[], { restarts = false }: { readonly restarts?: boolean }) => {
      process.exitCode = await exportFiles(files, restarts)
    })
}

async function exportFiles(files: readonly string[], restarts: boolean): Promise<number> {
  let exit: number = exitCodes.ok
  for (const file of files) {
    try {
      const problem = await exportFile(file, restarts)
      if (problem === undefined) continue
      process.stderr.write(`${file}${problem}\n`)
      exit = exitCodes.failed
    } catch (error) {
      const why = error instanceof Error ? error.message : 'cannot be read'
      process.stderr.write(`${file}: ${why}\n`)
      return exitCodes.fault
    }
  }
  return exit
}

/** What is wrong with the file, after what could be given of it. */
async function exportFile(file: string, restarts: boolean): Promise<string | undefined> {
  const events = ocsfExport()
  let unread = 0
  const { bad } = await readVerified(createReadStream(file), {
    restarts,
    use: async ({ record }) => {
      if (!record) unread += 1
      else for (const event of events.add(record)) await print(event)
    },
  })
  if (bad) return `:${bad.line}: ${bad.fault}`
  return unread === 0 ? undefined : `: ${unread} records are not of this version`
}

/** Waits for a slow reader. */
async function print(line: string): Promise<void> {
  if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain')
}
