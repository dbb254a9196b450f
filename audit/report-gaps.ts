import { isTold } from './is-covered.ts'
import type { Process } from './report-process.ts'
import type { FileFacts } from './report.ts'

/** What an account does not know. */
export interface Gap {
  readonly file: string
  readonly kind: GapKind
  readonly detail: string
  /** It leaves the account open; otherwise it is only named. */
  readonly open: boolean
}

export type GapKind =
  | 'chain'
  | 'torn'
  | 'unread'
  | 'signature'
  | 'unsigned'
  | 'restart'
  | 'sink'
  | 'not-in-force'
  | 'silence'
  | 'missing-outcome'
  | 'outlived'
  | 'late-byte'
  | 'no-file'
  | 'untold'

interface Window {
  readonly subject: string
  readonly recorded_at: string
  readonly expires_at?: string | undefined
}

export function gapsOf(
  record: Window,
  {
    processes,
    files,
    acknowledged,
  }: {
    readonly processes: readonly Process[]
    readonly files: readonly FileFacts[]
    readonly acknowledged: readonly string[]
  },
): readonly Gap[] {
  return [
    ...untold(record),
    ...files.flatMap(fileGaps),
    ...processes.flatMap((process) => processGaps(process, record)),
    ...missingFiles(processes, acknowledged),
  ]
}

function untold({ subject }: Window): readonly Gap[] {
  if (isTold(subject)) return []
  const detail = `decisions do not say whether ${subject} covers them`
  return [{ file: '-', kind: 'untold', detail, open: true }]
}

function fileGaps({ file, chain, unread, signatures }: FileFacts): readonly Gap[] {
  const gap = (kind: GapKind, detail: string, open: boolean): Gap => ({ file, kind, detail, open })
  return [
    ...(chain.bad ? [gap('chain', `line ${chain.bad.line}: ${chain.bad.fault}`, true)] : []),
    ...chain.torn.map((line) => gap('torn', `line ${line}: a write ended early`, false)),
    ...(unread > 0 ? [gap('unread', `${unread} records are not of this version`, true)] : []),
    ...(signatures?.bad === undefined ? [] : [gap('signature', signatures.bad, true)]),
    ...(signatures && signatures.unsigned > 0
      ? [gap('unsigned', `${signatures.unsigned} records after the last checkpoint`, false)]
      : []),
  ]
}

function processGaps(process: Process, record: Window): readonly Gap[] {
  const { file, instance, inForce, exchangesCut, cuts } = process
  const late = cuts.filter((cut) => Math.max(cut.last_up_ms ?? 0, cut.last_down_ms ?? 0) > 0)
  const gap = (kind: GapKind, detail: string, open: boolean): Gap => ({
    file,
    kind,
    detail: `sidecar ${instance}: ${detail}`,
    open,
  })
  const missing = inForce ? exchangesCut - cuts.length : 0
  return [
    ...(isRestartAfter(process, record) ? [gap('restart', restartText(process), false)] : []),
    ...process.gaps.map(({ records, since, cause }) =>
      gap('sink', `${records} records were in the spool only, from ${since}: ${cause}`, false),
    ),
    ...(isUnenforced(process, record) ? [gap('not-in-force', unenforcedText(process), true)] : []),
    ...process.silencesMs.map((ms) =>
      gap('silence', `no heartbeat for ${Math.round(ms / 1000)} s`, true),
    ),
    ...(missing > 0
      ? [gap('missing-outcome', `${missing} cut exchanges have no outcome`, true)]
      : []),
    ...(late.length > 0
      ? [gap('late-byte', `${late.length} cut exchanges handed on a byte after it`, true)]
      : []),
    ...process.outlived.map(({ decision_id }) =>
      gap('outlived', `decision ${decision_id} was allowed before and not cut`, true),
    ),
  ]
}

function isRestartAfter(
  { isRestart, firstTs }: Process,
  { recorded_at }: { readonly recorded_at: string },
): boolean {
  return isRestart && Date.parse(firstTs) >= Date.parse(recorded_at)
}

function restartText({ firstTs, afterCrash }: Process): string {
  return `began at ${firstTs}${afterCrash ? ' and the one before had not stopped' : ''}`
}

/**
 * Without the record in force it must know of its lift, have ended before the record was made, or begun after it expired. A log that just
 * ends before it may have been cut off there.
 */
function isUnenforced(
  { inForce, lift, stopped, followed, firstTs, lastTs }: Process,
  { recorded_at, expires_at }: Window,
): boolean {
  if (inForce || lift) return false
  if (expires_at !== undefined && Date.parse(firstTs) >= Date.parse(expires_at)) return false
  return !((stopped || followed) && Date.parse(lastTs) <= Date.parse(recorded_at))
}

function unenforcedText({ lastTs }: Process): string {
  return `the revocation is not on record, up to ${lastTs}`
}

/** Whoever told the store that it enforces the record wrote it on record too. */
function missingFiles(
  processes: readonly Process[],
  acknowledged: readonly string[],
): readonly Gap[] {
  const known = new Set(processes.map(({ instance }) => instance))
  return [...new Set(acknowledged)]
    .filter((instance) => !known.has(instance))
    .map((instance) => ({
      file: '-',
      kind: 'no-file',
      detail: `sidecar ${instance}: acknowledged it, and no file has its records`,
      open: true,
    }))
}
