import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../policy/types.ts'
import type { Exchanges } from './exchanges.ts'
import type { Listener } from './listener.ts'

interface DrainOptions {
  readonly exchanges: Exchanges
  readonly listener: Listener
  readonly clock: Clock
  /** From now until what still lives is cut. */
  readonly withinMs: number
}

const pollMs = 25
/** What requests under way get to end by themselves once no other follows; at most half of the whole. */
const finishMs = 2_000
/** After the cut: for the outcome records. */
const settleMs = 1_000

/**
 * Ends what the listener carries. Serves on until nothing is in flight, then accepts nothing more and lets every
 * connection end with the answer under way; cuts what still lives at the deadline, and returns how much that was.
 */
export async function drain({
  exchanges,
  listener,
  clock,
  withinMs,
}: DrainOptions): Promise<number> {
  const deadlineMs = clock.monotonic() + withinMs
  const until = async (isSo: () => boolean, atMs: number): Promise<void> => {
    while (!isSo() && clock.monotonic() < atMs) await delay(pollMs)
  }
  const isOver = (): boolean => {
    listener.closeIdle()
    // An answer is written before its last bytes have left.
    return exchanges.count === 0 && listener.connections === 0
  }
  listener.closeIdle()
  await until(() => exchanges.count === 0, deadlineMs - Math.min(finishMs, withinMs / 2))
  // A client that asks again and again would have a request under way at every deadline.
  listener.close()
  await until(isOver, deadlineMs)
  const cut = exchanges.cutAll('control-plane-stale')
  await until(isOver, clock.monotonic() + settleMs)
  return cut
}
