import { systemClock } from '../proxy/system-clock.ts'
import { maxLiveTasks } from '../revocation/presence-row.ts'
import { createPresenceReader, type Population } from '../revocation/presence-reader.ts'
import { createRedisGrantStore } from '../revocation/redis-grant-store.ts'
import { exitCodes } from './exit-codes.ts'
import { taskLines, taskTree, type TaskNode } from './live-tasks.ts'
import { printable } from './printable.ts'
import { askStore, type Store } from './store-options.ts'
import { descendants, flatten, readTask, type StoredTask } from './task-tree.ts'
import { isWide } from './wide-subject.ts'

/** `--dry-run`: what a record on this subject would reach. Records nothing. */
export async function showBlastRadius(
  store: Store,
  { subject, json }: { readonly subject: string; readonly json: boolean },
): Promise<number> {
  await using reader = createPresenceReader(store)
  const population = await askStore(store.redis, () => reader.read({ liveTasks: true }))
  const radius = blastRadius(population, subject)
  const below = await tasksBelow(store, subject)
  const shown = { ...radius, ...(below && { below: below.map(([{ txn }]) => txn) }) }
  process.stdout.write(
    json ? `${JSON.stringify(shown)}\n` : `${[lines(radius), ...storedLines(below)].join('\n')}\n`,
  )
  return exitCodes.ok
}

type Below = readonly (readonly [task: StoredTask, depth: number])[]

/** The stored tasks that a record on this one ends besides it; undefined when the subject is no task. */
async function tasksBelow(
  { redis, trustDomain }: Store,
  subject: string,
): Promise<Below | undefined> {
  if (!subject.startsWith('task:')) return undefined
  await using grants = createRedisGrantStore({ redis, trustDomain, clock: systemClock })
  const stored = await askStore(redis, () => grants.list(maxListed))
  return flatten(descendants(stored.map(readTask), subject.slice('task:'.length)))
}

const maxListed = 10_000

function storedLines(below: Below | undefined): readonly string[] {
  if (!below) return []
  return [
    `stored    ${below.length} tasks below it`,
    ...below.map(([{ txn, agent }, depth]) => {
      const words = `${txn}  ${agent ?? 'unreadable grant'}`
      return `${' '.repeat(10 + 2 * depth)}${printable(words)}`
    }),
  ]
}

interface BlastRadius {
  readonly subject: string
  readonly kind: string
  readonly wide: boolean
  readonly sidecars: number
  readonly silent: number
  /** Exchanges in flight on all sidecars: no more can be cut. */
  readonly exchanges: number
  /** Those that the record covers, where the sidecars tell. */
  readonly covered?: number
  /** A sidecar with more tasks than it lists may have more. */
  readonly at_least: boolean
  /** What the record covers of the tasks in flight, where the sidecars tell: parents before their children. */
  readonly tasks?: readonly TaskNode[]
}

function blastRadius({ sidecars }: Population, subject: string): BlastRadius {
  const exchanges = sidecars.reduce((sum, { row }) => sum + (row?.exchanges ?? 0), 0)
  const kind = subject === 'all' ? subject : subject.slice(0, subject.indexOf(':'))
  const common = {
    subject,
    kind,
    wide: isWide(subject),
    sidecars: sidecars.length,
    silent: sidecars.filter(({ silent }) => silent).length,
    exchanges,
    at_least: false,
  }
  if (kind === 'all') return { ...common, covered: exchanges, tasks: taskTree(sidecars) }
  if (kind !== 'task') return common
  const txn = subject.slice('task:'.length)
  const tasks = taskTree(sidecars, txn)
  return {
    ...common,
    covered: tasks[0]?.exchanges ?? 0,
    at_least: sidecars.some(({ live }) => !live.has(txn) && live.size >= maxLiveTasks),
    tasks,
  }
}

const maxShown = 40

function lines(radius: BlastRadius): string {
  const { subject, kind, wide, sidecars, silent, exchanges, covered, tasks } = radius
  const width = wide ? 'wide: it needs --yes, or typing it again' : 'narrow'
  const live =
    covered === undefined
      ? `at most ${exchanges}: sidecars count by task only`
      : `${radius.at_least ? 'at least ' : ''}${covered} of ${exchanges}`
  return [
    `dry run   ${subject} (${kind}, ${width}); nothing is recorded`,
    `sidecars  ${sidecars}, of which ${silent} silent`,
    `live      ${live} exchanges in flight would be cut, as of a second ago`,
    ...(tasks ? [`tasks     ${tasks.length} in flight`, ...taskLines(tasks, maxShown)] : []),
  ].join('\n')
}
