import type { Command } from 'commander'
import { printable } from './printable.ts'
import { readInForce } from './read-in-force.ts'
import { addStoreOptions, readStoreOptions, type StoreOptions } from './store-options.ts'

type ListOptions = StoreOptions & { readonly json: boolean }

/** `chaperone revocations`: what is in force. */
export function registerRevocations(program: Command): void {
  const command = program
    .command('revocations')
    .description('list the records in force; with --redis also those that are lifted')
    .option('--json', 'one JSON object per line', false)
  addStoreOptions(command).action(async (options: ListOptions) => {
    const records = await readInForce(readStoreOptions(options))
    for (const record of records) {
      const { rid, op, subject, reason, by, atMs } = record
      const line = options.json
        ? JSON.stringify(record)
        : `${new Date(atMs).toISOString()}  ${op.padEnd(10)}  ${subject}  "${printable(reason)}" by ${printable(by)}  ${rid}`
      process.stdout.write(`${line}\n`)
    }
    if (records.length === 0 && !options.json) process.stdout.write('No record is in force.\n')
  })
}
