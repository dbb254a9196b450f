import { setTimeout as delay } from 'node:timers/promises'
import { formatProblem, loadConfig } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { identify, identifyAll, type WatchedFiles } from './file-identity.ts'

export interface WatchConfigOptions {
  readonly path: string
  /** Of the configuration in force: what was written since it was read is then noticed. Default: none is known. */
  readonly sha256?: string
  /** What the configuration in force was made of besides its own file. Default: nothing. */
  readonly watched?: () => WatchedFiles
  readonly log: ReloadLog
  /** Swaps the whole configuration, or rejects and leaves the old one in force. */
  apply(next: { readonly config: Config; readonly sha256: string }): Promise<void>
  onResult(result: ReloadResult): void
}

export type ReloadResult = 'applied' | 'rejected' | 'unchanged'

export interface ReloadLog {
  info(obj: object, msg: string): void
  error(obj: object, msg: string): void
}

/**
 * Loads the configuration again on SIGHUP and when the file or one beside it that is watched changes, one reload at a time. SIGHUP applies it also when
 * its text is the same: policies and keys that it names may have changed. A bad one is logged and left alone. Never
 * throws; disposing waits for a reload under way.
 */
export function watchConfig(options: WatchConfigOptions): AsyncDisposable {
  const { path, watched = () => nothing } = options
  const look = (): Identity => ({ file: identify(path), beside: identifyAll(watched().paths) })
  const stop = new AbortController()
  let identity: Identity = { file: options.sha256 === undefined ? identify(path) : '', beside: '' }
  let applied = options.sha256
  let isQueued = false
  let isForced = false
  let wasRejected = false
  let last: Promise<void> = Promise.resolve()

  const reload = async () => {
    identity = await settle(look, stop.signal)
    if (stop.signal.aborted) return
    // After a refusal the same text may mean something else by now: what it names has changed.
    const force = isForced || wasRejected
    isQueued = false
    isForced = false
    const outcome = await loadAndApply(options, force ? undefined : applied)
    applied = outcome.sha256 ?? applied
    wasRejected = outcome.result === 'rejected'
    options.onResult(outcome.result)
  }
  /** Requests that come while one waits are the same one: the queue holds one reload at most. */
  const request = ({ force }: { readonly force: boolean }) => {
    isForced ||= force
    if (isQueued) return
    isQueued = true
    last = last.then(reload).catch((error: unknown) => {
      options.log.error({ err: error }, 'reload failed')
    })
  }

  const onHangUp = () => request({ force: true })
  process.on('SIGHUP', onHangUp)
  const timer = setInterval(() => {
    const now = look()
    // As it was read, or as it was tried and refused: anything else is new.
    const isOld = now.beside === watched().identity || now.beside === identity.beside
    if (!isOld) request({ force: true })
    else if (now.file !== identity.file) request({ force: false })
  }, pollEveryMs).unref()
  return {
    async [Symbol.asyncDispose]() {
      stop.abort()
      clearInterval(timer)
      process.off('SIGHUP', onHangUp)
      await last
    },
  }
}

const nothing: WatchedFiles = { paths: [], identity: '' }
const pollEveryMs = 1_000
/** An editor that writes in pieces is done when two looks this far apart agree. */
const settleMs = 100
const maxSettleRounds = 20

interface Outcome {
  readonly result: ReloadResult
  /** Of the configuration now in force, when it is another one. */
  readonly sha256?: string
}

async function loadAndApply(
  options: WatchConfigOptions,
  applied: string | undefined,
): Promise<Outcome> {
  const { path, log } = options
  const loaded = loadConfig(path)
  if (!loaded.ok) {
    for (const problem of loaded.problems) log.error({ path }, formatProblem(problem))
    return { result: 'rejected' }
  }
  const { config, sha256 } = loaded
  if (sha256 === applied) return { result: 'unchanged' }
  try {
    await options.apply({ config, sha256 })
  } catch (error) {
    log.error({ path, sha256, err: error }, 'configuration refused, the old one stays')
    return { result: 'rejected' }
  }
  log.info({ path, sha256 }, 'configuration applied')
  return { result: 'applied', sha256 }
}

/** What the files are like, in text that changes with them. */
interface Identity {
  readonly file: string
  readonly beside: string
}

/** The identity once it no longer changes, or after two seconds. */
async function settle(look: () => Identity, signal: AbortSignal): Promise<Identity> {
  let identity = look()
  for (let round = 0; round < maxSettleRounds; round++) {
    try {
      await delay(settleMs, undefined, { signal })
    } catch {
      return identity
    }
    const current = look()
    if (current.file === identity.file && current.beside === identity.beside) return current
    identity = current
  }
  return identity
}
