import { setTimeout as delay } from 'node:timers/promises'

/** Resolves at the first SIGTERM or SIGINT. A second one ends the process at once. */
export function untilSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
}

/** Does it again, so long after its end, until the first signal. Resolves with what the last whole one gave. */
export async function repeatUntilSignal<T>(
  everyMs: number,
  look: () => Promise<T>,
): Promise<T | undefined> {
  const stopped = new AbortController()
  const stop = untilSignal().then(() => stopped.abort())
  let last: T | undefined
  while (!stopped.signal.aborted) {
    // A store that does not answer must not keep the operator waiting too.
    await Promise.race([look().then((found) => (last = found)), stop])
    await delay(everyMs, undefined, { signal: stopped.signal }).catch(() => undefined)
  }
  return last
}
