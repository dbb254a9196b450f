import { maxLiveTasks } from '../revocation/presence-row.ts'
import { createPresenceReader, type Population } from '../revocation/presence-reader.ts'
import { exitCodes } from './exit-codes.ts'
import { askStore, type Store } from './store-options.ts'
import { isWide } from './wide-subject.ts'

/** `--dry-run`: what a record on this subject would reach. Records nothing. */
export async function showBlastRadius(
  store: Store,
  { subject, json }: { readonly subject: string; readonly json: boolean },
): Promise<number> {
  await using reader = createPresenceReader(store)
  const population = await askStore(store.redis, () => reader.read({ liveTasks: true }))
  const radius = blastRadius(population, subject)
  process.stdout.write(json ? `${JSON.stringify(radius)}\n` : `${lines(radius)}\n`)
  return exitCodes.ok
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
  if (kind === 'all') return { ...common, covered: exchanges }
  if (kind !== 'task') return common
  const txn = subject.slice('task:'.length)
  return {
    ...common,
    covered: sidecars.reduce((sum, { live }) => sum + (live[txn] ?? 0), 0),
    at_least: sidecars.some(
      ({ live }) => live[txn] === undefined && Object.keys(live).length >= maxLiveTasks,
    ),
  }
}

function lines(radius: BlastRadius): string {
  const { subject, kind, wide, sidecars, silent, exchanges, covered, at_least: atLeast } = radius
  const width = wide ? 'wide: it needs --yes, or typing it again' : 'narrow'
  const live =
    covered === undefined
      ? `at most ${exchanges}: sidecars count by task only`
      : `${atLeast ? 'at least ' : ''}${covered} of ${exchanges}`
  return `dry run   ${subject} (${kind}, ${width}); nothing is recorded
sidecars  ${sidecars}, of which ${silent} silent
live      ${live} exchanges in flight would be cut, as of a second ago`
}
