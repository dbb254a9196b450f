import { createReadStream } from 'node:fs'
import type { Command } from 'commander'
import type { SignatureReport } from '../audit/checkpoint.ts'
import type { ChainReport } from '../audit/chain.ts'
import { readVerified } from '../audit/read-file.ts'
import { registerAuditQuery } from './audit-query.ts'
import { registerAuditReport } from './audit-report.ts'
import { signaturesBy } from './audit-signatures.ts'
import { exitCodes } from './exit-codes.ts'

/** `chaperone audit verify|report|query`: what logs prove. 0: it holds, 1: it does not, 2: a file cannot be read. */
export function registerAudit(program: Command): void {
  const audit = program.command('audit').description('check, report on and search audit logs')
  audit
    .command('verify')
    .description('prove that no record of a log was changed, cut out, moved or put in')
    .argument('<file>', 'audit log')
    .option('--restarts', 'accept that the chain begins anew, as in collected standard output')
    .option('--key <jwks>', 'public JWK Set: check the signed checkpoints too')
    .action(async (file: string, options: VerifyOptions) => {
      process.exitCode = await verify(file, options)
    })
  registerAuditReport(audit)
  registerAuditQuery(audit)
}

interface VerifyOptions {
  readonly restarts?: boolean
  readonly key?: string
}

async function verify(path: string, { restarts = false, key }: VerifyOptions): Promise<number> {
  try {
    const signatures = key === undefined ? undefined : signaturesBy(key)()
    const chain = await readVerified(createReadStream(path), {
      restarts,
      use: async ({ place, record }) => {
        const checkpoint = record?.type === 'checkpoint' ? record : undefined
        await signatures?.add({ ...place, ...(checkpoint && { checkpoint }) })
      },
    })
    for (const line of chain.torn) {
      process.stdout.write(`${path}:${line}: torn line: a write ended early\n`)
    }
    process.stdout.write(`${verdict(path, chain)}\n`)
    if (chain.bad) return exitCodes.failed
    const signed = signatures?.report()
    if (signed) process.stdout.write(`${signatureVerdict(path, signed)}\n`)
    return signed?.bad === undefined ? exitCodes.ok : exitCodes.failed
  } catch (error) {
    process.stderr.write(`${path}: ${error instanceof Error ? error.message : 'cannot be read'}\n`)
    return exitCodes.fault
  }
}

function verdict(path: string, { records, chains, first, last, bad }: ChainReport): string {
  if (bad) return `${path}:${bad.line}: ${bad.fault}`
  const state = chains > 1 ? `${chains} chains, each intact` : 'chain intact'
  return `${records} records, ${state}, first ${first ?? '-'} last ${last ?? '-'}`
}

function signatureVerdict(
  path: string,
  { bad, signed, checkpoints, unsigned }: SignatureReport,
): string {
  if (bad !== undefined) return `${path}: ${bad}`
  const upTo = signed ? `signed up to seq ${signed.seq} at ${signed.ts}` : 'nothing signed'
  return `${upTo}, ${checkpoints} checkpoints, ${unsigned} records after the last one`
}
