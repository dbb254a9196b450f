import { createReadStream } from 'node:fs'
import type { Command } from 'commander'
import { splitLines, verifyChain, type ChainReport } from '../audit/chain.ts'

/** `chaperone audit verify <file>`: ends with 0 for an intact chain, 1 for a broken one, 2 when it cannot be read. */
export function registerAudit(program: Command): void {
  program
    .command('audit')
    .description('check audit logs')
    .command('verify')
    .description('prove that no record of a log was changed, cut out, moved or put in')
    .argument('<file>', 'audit log')
    .option('--restarts', 'accept that the chain begins anew, as in collected standard output')
    .action(async (file: string, { restarts = false }: { restarts?: boolean }) => {
      process.exitCode = await verify(file, { restarts })
    })
}

async function verify(path: string, options: { readonly restarts: boolean }): Promise<number> {
  try {
    const report = await verifyChain(splitLines(createReadStream(path)), options)
    for (const line of report.torn) {
      process.stdout.write(`${path}:${line}: torn line: a write ended early\n`)
    }
    process.stdout.write(`${verdict(path, report)}\n`)
    return report.bad ? 1 : 0
  } catch (error) {
    process.stderr.write(`${path}: ${error instanceof Error ? error.message : 'cannot be read'}\n`)
    return 2
  }
}

function verdict(path: string, { records, chains, first, last, bad }: ChainReport): string {
  if (bad) return `${path}:${bad.line}: ${bad.fault}`
  const state = chains > 1 ? `${chains} chains, each intact` : 'chain intact'
  return `${records} records, ${state}, first ${first ?? '-'} last ${last ?? '-'}`
}
