import { getHeapStatistics } from 'node:v8'

/** `shrink`: what can be had again is dropped. `refuse`: nothing new is taken on; what is in flight goes on. */
export type OverloadState = 'none' | 'shrink' | 'refuse'

/** Watches how full the heap is. Disposal ends the watch. */
export interface Overload extends Disposable {
  readonly state: OverloadState
  /** Looks now. */
  look(): void
}

interface OverloadOptions {
  /** The share of the heap's limit that is in use. */
  readonly readHeap: () => number
  /** Called at every look that finds the heap at 95 % or more. */
  readonly shrink: () => void
  readonly log: {
    warn(fields: Readonly<Record<string, unknown>>, message: string): void
    info(fields: Readonly<Record<string, unknown>>, message: string): void
  }
}

/** An agent that drives the sidecar out of memory would end it, and every task of the pod with it. */
export function watchOverload({ readHeap: read, shrink, log }: OverloadOptions): Overload {
  let state: OverloadState = 'none'
  const look = (): void => {
    const heapUsed = read()
    const next = stateAt(heapUsed)
    if (next !== state) {
      const fields = { state: next, heapUsed: Math.round(heapUsed * 100) / 100 }
      if (next === 'none') log.info(fields, 'The heap has room again')
      else log.warn(fields, 'The heap is nearly used up')
    }
    state = next
    if (next !== 'none') shrink()
  }
  const timer = setInterval(look, everyMs)
  timer.unref()
  return {
    get state() {
      return state
    },
    look,
    [Symbol.dispose]: () => clearInterval(timer),
  }
}

/** Garbage counts too: V8 collects it before the limit is reached, so close below the limit little of it is left. */
export function readHeap(): number {
  const { used_heap_size: used, heap_size_limit: limit } = getHeapStatistics()
  return used / limit
}

const everyMs = 250

function stateAt(heapUsed: number): OverloadState {
  if (heapUsed >= 0.98) return 'refuse'
  return heapUsed >= 0.95 ? 'shrink' : 'none'
}
