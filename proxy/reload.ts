import { statSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { formatProblem, loadConfig } from '../config/load.ts'
import type { Config } from '../config/schema.ts'

export interface WatchConfigOptions {
  readonly path: string
  /** Of the configuration in force: what was written since it was read is then noticed. Default: none is known. */
  readonly sha256?: string
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
 * Loads the configuration again on SIGHUP and when the file changes, one reload at a time. SIGHUP applies it also when
 * its text is the same: policies and keys that it names may have changed. A bad one is logged and left alone. Never
 * throws; disposing waits for a reload under way.
 */
export function watchConfig(options: WatchConfigOptions): AsyncDisposable {
  const { path } = options
  const stop = new AbortController()
  let identity = options.sha256 === undefined ? identify(path) : ''
  let applied = options.sha256
  let isQueued = false
  let isForced = false
  let last: Promise<void> = Promise.resolve()

  const reload = async () => {
    identity = await settle(path, stop.signal)
    if (stop.signal.aborted) return
    const force = isForced
    isQueued = false
    isForced = false
    const outcome = await loadAndApply(options, force ? undefined : applied)
    applied = outcome.sha256 ?? applied
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
    if (identify(path) !== identity) request({ force: false })
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

/** The identity of the file once it no longer changes, or after two seconds. */
async function settle(path: string, signal: AbortSignal): Promise<string> {
  let identity = identify(path)
  for (let round = 0; round < maxSettleRounds; round++) {
    try {
      await delay(settleMs, undefined, { signal })
    } catch {
      return identity
    }
    const current = identify(path)
    if (current === identity) return current
    identity = current
  }
  return identity
}

/** Of the file behind all symlinks: a mounted ConfigMap changes by a symlink swap. */
function identify(path: string): string {
  try {
    const { ino, mtimeMs, size } = statSync(path)
    return `${ino}:${mtimeMs}:${size}`
  } catch {
    return 'absent'
  }
}
