/** A flow as its agent's side sees it. Times are those of `performance.now()`. */
export interface Flow {
  /** Resolves once bytes have moved; rejects when the flow ends before. */
  readonly live: Promise<void>
  /** Resolves at its end, for polling at its first refusal. */
  readonly ended: Promise<void>
  facts(): FlowFacts
  close(): void
}

export interface FlowFacts {
  /** Undefined while it lives. */
  readonly end?: FlowEnd & { readonly atMs: number }
  /** The last byte that came from the other side. */
  readonly lastDownMs?: number
  /** The last byte that the connection took from here: at the latest then it left. */
  readonly lastUpMs?: number
}

export interface FlowEnd {
  /** `refused`: an HTTP answer; `closed`: a close frame; `reset`: the connection broke; `clean`: it looked complete. */
  readonly how: 'refused' | 'closed' | 'reset' | 'clean'
  readonly status?: number
  /** The sidecar's code, or the reason of a close frame; empty when there was none. */
  readonly code?: string
}

/** What a flow tells as it happens. */
export interface Observer {
  live(): void
  up(): void
  down(): void
  /** Only the first end counts. */
  ended(end: FlowEnd): void
}

/** A flow and its observer; `close` ends the connection from here. */
export function observe(close: () => void): { readonly flow: Flow; readonly observer: Observer } {
  const live = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<void>()
  live.promise.catch(() => undefined)
  let end: FlowFacts['end']
  let lastDownMs: number | undefined
  let lastUpMs: number | undefined
  return {
    flow: {
      live: live.promise,
      ended: ended.promise,
      facts: () => ({
        ...(end && { end }),
        ...(lastDownMs !== undefined && { lastDownMs }),
        ...(lastUpMs !== undefined && { lastUpMs }),
      }),
      close,
    },
    observer: {
      live: () => live.resolve(),
      up() {
        lastUpMs = performance.now()
      },
      down() {
        lastDownMs = performance.now()
        live.resolve()
      },
      ended(how) {
        end ??= { ...how, atMs: performance.now() }
        live.reject(new Error(describe(how)))
        ended.resolve()
      },
    },
  }
}

function describe({ how, status, code }: FlowEnd): string {
  return [how, status, code].filter((word) => word !== undefined && word !== '').join(' ')
}
