import { createReadStream } from 'node:fs'
import type { Command } from 'commander'
import { checkSignatures, type SignatureCheck, type SignatureReport } from '../audit/checkpoint.ts'
import { compareCheckpoints, type CheckpointComparison } from '../audit/compare-checkpoints.ts'
import type { ChainReport } from '../audit/chain.ts'
import { readVerified } from '../audit/read-file.ts'
import type { PublicKey } from '../policy/public-key.ts'
import { createRedisCheckpoints } from '../revocation/redis-checkpoints.ts'
import { readPublicKeys } from './read-public-keys.ts'
import { exitCodes } from './exit-codes.ts'
import { printable } from './printable.ts'
import { addStoreOptions, askStore, readStoreOptions, type StoreOptions } from './store-options.ts'

/** `chaperone audit verify <file...>`: what logs prove. 0: it holds, 1: it does not, 2: a file cannot be read. */
export function registerAuditVerify(audit: Command): void {
  const command = audit
    .command('verify')
    .description('prove that no record of a log was changed, cut out, moved or put in')
    .argument('<file...>', 'audit logs')
    .option('--restarts', 'accept that the chain begins anew, as in collected standard output')
    .option('--key <jwks>', 'public JWK Set: check the signed checkpoints too')
    .option('--against-store', 'against the checkpoints in Redis: all files of all sidecars', false)
  addStoreOptions(command).action(async (files: string[], options: VerifyOptions) => {
    process.exitCode = await verify(files, options)
  })
}

interface VerifyOptions extends StoreOptions {
  readonly restarts?: boolean
  readonly key?: string
  readonly againstStore: boolean
}

async function verify(files: readonly string[], options: VerifyOptions): Promise<number> {
  const { key, restarts = false } = options
  const keys = key === undefined ? undefined : readPublicKeys(key)
  // Before the files: a running sidecar goes on with both.
  const comparison = options.againstStore ? await openComparison(options, keys) : undefined
  let exit: number = exitCodes.ok
  for (const path of files) {
    try {
      const signatures = keys && checkSignatures(keys)
      const holds = await verifyFile(path, { restarts, signatures, comparison })
      if (!holds) exit = exitCodes.failed
    } catch (error) {
      process.stderr.write(
        `${path}: ${error instanceof Error ? error.message : 'cannot be read'}\n`,
      )
      return exitCodes.fault
    }
  }
  const problems = (await comparison?.problems()) ?? []
  for (const problem of problems) process.stdout.write(`${printable(problem)}\n`)
  if (comparison && problems.length === 0) {
    process.stdout.write('everything that the store has a checkpoint of is there\n')
  }
  return problems.length === 0 ? exit : exitCodes.failed
}

async function openComparison(
  options: VerifyOptions,
  keys: ReadonlyMap<string, PublicKey> | undefined,
): Promise<CheckpointComparison> {
  const store = readStoreOptions(options)
  await using checkpoints = createRedisCheckpoints(store)
  return compareCheckpoints(await askStore(store.redis, () => checkpoints.read()), keys)
}

interface Checks {
  readonly restarts: boolean
  readonly signatures: SignatureCheck | undefined
  readonly comparison: CheckpointComparison | undefined
}

/** Whether the chain, and the signatures when they are asked for, hold. */
async function verifyFile(
  path: string,
  { restarts, signatures, comparison }: Checks,
): Promise<boolean> {
  const chain = await readVerified(createReadStream(path), {
    restarts,
    use: async ({ place, record }) => {
      const checkpoint = record?.type === 'checkpoint' ? record : undefined
      await signatures?.add({ ...place, ...(checkpoint && { checkpoint }) })
      if (!record) return
      const { seq, hash, sidecar } = record
      const fleet = checkpoint?.checkpoint.fleet
      comparison?.add({ seq, hash, instance: sidecar.instance, fleet })
    },
  })
  for (const line of chain.torn) {
    process.stdout.write(`${path}:${line}: torn line: a write ended early\n`)
  }
  process.stdout.write(`${verdict(path, chain)}\n`)
  if (chain.bad) return false
  const signed = signatures?.report()
  if (signed) process.stdout.write(`${signatureVerdict(path, signed)}\n`)
  return signed?.bad === undefined
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
