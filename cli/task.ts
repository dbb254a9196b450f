import type { Command } from 'commander'
import { decodeJwt, type JWTPayload } from 'jose'
import { isDenial } from '../policy/denial.ts'
import { exitCodes } from './exit-codes.ts'
import { loadOrReport, verifyAsSidecar, withGrantStore } from './grants.ts'
import { printable } from './printable.ts'
import { registerTaskGrant } from './task-grant.ts'
import { descendants, flatten, readTask, taskForest, type TaskTree } from './task-tree.ts'

/** `chaperone task grant|show|ls`: what the approver signs, and what the store holds. */
export function registerTask(program: Command): void {
  const task = program.command('task').description('sign, show and list task grants')
  registerTaskGrant(task)
  task
    .command('show')
    .description('show the grant of a task, and whether it would be accepted')
    .argument('<txn>', 'the task')
    .option('-c, --config <path>', 'configuration file', 'chaperone.yaml')
    .option('--json', 'print JSON', false)
    .action(async (txn: string, options: { config: string; json: boolean }) => {
      process.exitCode = await show(txn, options)
    })
  task
    .command('ls')
    .description('list the stored grants, newest first, each above those that hang on it')
    .option('-c, --config <path>', 'configuration file', 'chaperone.yaml')
    .option('-n, --limit <count>', 'at most so many', '100')
    .option('--json', 'one JSON object per line', false)
    .action(async (options: { config: string; limit: string; json: boolean }) => {
      process.exitCode = await list(options)
    })
}

async function show(
  txn: string,
  options: { readonly config: string; readonly json: boolean },
): Promise<number> {
  const config = loadOrReport(options.config)
  if (!config) return exitCodes.badConfig
  const { compact, stored } = await withGrantStore(config, async (store) => ({
    compact: await store.get(txn),
    stored: await store.list(maxListed),
  }))
  if (compact === undefined) {
    process.stderr.write(`No grant of task ${printable(txn)} is stored\n`)
    return exitCodes.failed
  }
  const verified = await verifyAsSidecar(compact, config)
  const state = isDenial(verified) ? `${verified.code}: ${verified.detail}` : 'valid'
  // The claims of a grant that does not verify are shown too: the operator wants to know what is wrong with it.
  const claims = claimsOf(compact)
  const below = descendants(stored.map(readTask), txn).map(toShown)
  const shown = { state, claims, ...(below.length > 0 && { below }) }
  process.stdout.write(`${JSON.stringify(shown, null, options.json ? 0 : 2)}\n`)
  return isDenial(verified) ? exitCodes.failed : exitCodes.ok
}

interface Shown {
  readonly txn: string
  readonly sub: string | undefined
  readonly below?: readonly Shown[]
}

function toShown({ txn, agent, children }: TaskTree): Shown {
  return { txn, sub: agent, ...(children.length > 0 && { below: children.map(toShown) }) }
}

async function list({
  config: path,
  limit,
  json,
}: {
  config: string
  limit: string
  json: boolean
}): Promise<number> {
  const config = loadOrReport(path)
  if (!config) return exitCodes.badConfig
  const most = Number(limit)
  if (!Number.isInteger(most) || most < 1 || most > maxListed) {
    process.stderr.write(`Expected a limit from 1 to ${maxListed}\n`)
    return exitCodes.usage
  }
  const grants = await withGrantStore(config, (store) => store.list(most))
  for (const [task, depth] of flatten(taskForest(grants.map(readTask)))) {
    const { txn, agent: sub, purpose, ancestors } = task
    const expires = new Date(task.expiresAtMs).toISOString()
    const parent = ancestors.at(-1)
    // Its parent is not among those that are listed.
    const orphan = depth === 0 && parent !== undefined ? [`below ${parent}`] : []
    const words = [txn, sub ?? 'unreadable grant', purpose ?? '-', `until ${expires}`, ...orphan]
    const line = json
      ? JSON.stringify({ txn, sub, purpose, expires, parent })
      : '  '.repeat(depth) + printable(words.join('  '))
    process.stdout.write(`${line}\n`)
  }
  return exitCodes.ok
}

const maxListed = 10_000

/** Without verification: for the eye of the operator. Undefined when the store holds something else. */
function claimsOf(compact: string): JWTPayload | undefined {
  try {
    return decodeJwt(compact)
  } catch {
    return undefined
  }
}
