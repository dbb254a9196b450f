import type { Command } from 'commander'
import type { Revocation } from '../policy/types.ts'
import { createLog } from '../proxy/log.ts'
import { systemClock } from '../proxy/system-clock.ts'
import { createRedisFeed } from '../revocation/redis-feed.ts'
import { printable } from './printable.ts'
import { addStoreOptions, readStoreOptions, type StoreOptions } from './store-options.ts'
import { untilSignal } from './until-signal.ts'

interface TailOptions extends StoreOptions {
  readonly json: boolean
}

const syncIntervalMs = 1_000

/** `chaperone tail`: each record as it is committed, until Ctrl-C. */
export function registerTail(program: Command): void {
  const command = program
    .command('tail')
    .description('print each record as it is committed, until it is stopped')
    .option('--json', 'one JSON object per line', false)
  addStoreOptions(command).action((options: TailOptions) => tail(options))
}

/** Follows like a sidecar does: what a broken connection lost is found by the next sync. */
async function tail(options: TailOptions): Promise<void> {
  const log = createLog({ level: 'warn' })
  const store = readStoreOptions(options)
  await using feed = createRedisFeed({ ...store, syncIntervalMs, clock: systemClock, log })
  let following = false
  feed.onApplied((records) => {
    // What was there before is for `chaperone revocations`.
    if (!following) return
    for (const record of records) process.stdout.write(`${line(record, options.json)}\n`)
  })
  const stop = untilSignal()
  feed.start()
  await Promise.race([feed.ready, stop])
  following = true
  process.stderr.write(`Following ${printable(store.redis.url)} from position ${feed.view.epoch}\n`)
  await stop
}

function line(record: Revocation, json: boolean): string {
  if (json) return JSON.stringify(record)
  const { rid, op, subject, reason, by, atMs, epoch } = record
  const where = epoch === undefined ? 'not yet recorded' : `position ${epoch}`
  return `${new Date(atMs).toISOString()}  ${op.padEnd(10)}  ${subject}  "${printable(reason)}" by ${printable(by)}  ${printable(rid)}  ${where}`
}
