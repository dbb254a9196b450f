import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** What the upstream process told: `request`, `closed`, `uploading`, `lookup`, `refund`, `waiting`, `ws-open`, `ws-closed`. */
export interface UpstreamEvent {
  readonly type: string
  readonly method?: string
  readonly url?: string
  readonly rawHeaders?: readonly string[]
  readonly received?: number
  readonly complete?: boolean
  readonly code?: number
  readonly order?: string
  readonly amount?: number
}

export interface UpstreamProcess extends AsyncDisposable {
  readonly url: string
  readonly events: readonly UpstreamEvent[]
  /** Resolves with the first event, past or to come, that fits. Rejects after `withinMs` (default 5000). */
  seen(fits: (event: UpstreamEvent) => boolean, withinMs?: number): Promise<UpstreamEvent>
  /** Forgets what was told so far. */
  forget(): void
}

/** Starts the upstream of `upstream-main.ts` in a process of its own. */
export async function startUpstream(args: readonly string[] = []): Promise<UpstreamProcess> {
  const child = fork(fileURLToPath(new URL('upstream-main.ts', import.meta.url)), [...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const events: UpstreamEvent[] = []
  const waiting = new Set<() => void>()
  const { promise: port, resolve: listening } = Promise.withResolvers<number>()
  child.on('message', (message: UpstreamEvent & { port?: number }) => {
    if (message.port !== undefined) return listening(message.port)
    events.push(message)
    for (const look of waiting) look()
  })
  const url = `http://127.0.0.1:${await port}`
  return {
    url,
    events,
    forget: () => void events.splice(0),
    seen: (fits, withinMs = 30_000) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = events.find(fits)
          if (!found) return
          finish()
          resolve(found)
        }
        const timer = setTimeout(() => {
          finish()
          reject(
            new Error(
              `The upstream did not see it within ${withinMs} ms: ${JSON.stringify(events.map(({ type, url: at }) => [type, at]))}`,
            ),
          )
        }, withinMs)
        const finish = (): void => {
          clearTimeout(timer)
          waiting.delete(look)
        }
        waiting.add(look)
        look()
      }),
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}
