import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../policy/types.ts'
import type { Committed } from './feed.ts'
import { parsePosition } from './link-hash.ts'
import type { Acknowledgement, PresenceReader, RegisteredSidecar } from './presence-reader.ts'

/** Which sidecars have a committed record in force, and which did not say so in time. */
export interface Enforcement {
  readonly confirmed: readonly Confirmation[]
  readonly unconfirmed: readonly Unconfirmed[]
}

export interface Confirmation {
  readonly instance: string
  readonly host: string
  /** From the call of `commit()` until its word was read here: an upper bound, by one clock. */
  readonly afterMs: number
  /** What it ended, and how long that took there; undefined when only its position shows that it has the record. */
  readonly cut?: number
  readonly dropped?: number
  readonly tookMs?: number
}

export interface Unconfirmed {
  readonly instance: string
  readonly host: string
  readonly seenMs: number
  /**
   * The latest instants, on the server's clock, at which it refuses everything and has ended its streams by itself. A
   * view that is fresher than the commit has the record; an older one is past its bound by then. Undefined when what
   * it registered cannot be read.
   */
  readonly closedByMs?: { readonly reads: number; readonly streams: number }
}

export interface AwaitOptions {
  readonly rid: string
  readonly committed: Committed
  /** When `commit()` was called, monotonic milliseconds. */
  readonly committedFromMs: number
  readonly waitMs: number
  readonly clock: Clock
}

/**
 * Polls until every sidecar that is not silent has the record in force, at most `waitMs`. A sidecar has it when it
 * acknowledged this very record, or when its position is at or past the commit's in the same history. One that ends in
 * order meanwhile drops out. Rejects with `RevocationStoreError` when the store does not answer.
 */
export async function awaitEnforcement(
  reader: PresenceReader,
  options: AwaitOptions,
): Promise<Enforcement> {
  const { clock, committedFromMs, waitMs } = options
  const deadline = clock.monotonic() + waitMs
  const confirmed = new Map<string, Confirmation>()
  for (;;) {
    const [{ sidecars }, acks] = await Promise.all([
      reader.read(),
      reader.acknowledgements(options.committed.atMs),
    ])
    const acknowledged = ofRecord(acks, options)
    const afterMs = clock.monotonic() - committedFromMs
    for (const sidecar of sidecars) {
      if (confirmed.has(sidecar.instance)) continue
      const ack = acknowledged.get(sidecar.instance)
      if (!ack && !(await isPast(sidecar, { reader, options }))) continue
      confirmed.set(sidecar.instance, toConfirmation(sidecar, { afterMs, ack }))
    }
    const waitsFor = sidecars.filter(({ instance }) => !confirmed.has(instance))
    if (waitsFor.every(({ silent }) => silent) || clock.monotonic() >= deadline) {
      return {
        confirmed: [...confirmed.values()],
        unconfirmed: waitsFor.map((sidecar) => toUnconfirmed(sidecar, options)),
      }
    }
    await delay(Math.min(Math.max(afterMs / 8, minPollMs), maxPollMs))
  }
}

/** Often at first, when nearly all answer; a fleet that takes long is not asked more often for it. */
const minPollMs = 2
const maxPollMs = 50

/** The `rid` alone would do for a channel that nobody else can write to. */
function ofRecord(
  acks: readonly Acknowledgement[],
  { rid, committed }: AwaitOptions,
): ReadonlyMap<string, Acknowledgement> {
  const ours = acks.filter((ack) => ack.rid === rid && ack.recordedAtMs === committed.atMs)
  return new Map(ours.map((ack) => [ack.instance, ack]))
}

async function isPast(
  { row }: RegisteredSidecar,
  { reader, options }: { readonly reader: PresenceReader; readonly options: AwaitOptions },
): Promise<boolean> {
  const at = parsePosition(row?.position ?? '-')
  const wanted = parsePosition(options.committed.epoch)
  if (!at || !wanted || at.n < wanted.n) return false
  if (at.n === wanted.n) return at.h === wanted.h
  // A higher place in another history proves nothing: its entry must stand in this log.
  return (await reader.linkAt(at.n)) === at.h
}

function toConfirmation(
  { instance, row }: RegisteredSidecar,
  { afterMs, ack }: { readonly afterMs: number; readonly ack: Acknowledgement | undefined },
): Confirmation {
  return {
    instance,
    host: row?.host ?? '?',
    afterMs,
    ...(ack && { cut: ack.cut, dropped: ack.dropped, tookMs: ack.tookMs }),
  }
}

function toUnconfirmed(
  { instance, row, seenMs }: RegisteredSidecar,
  { committed }: AwaitOptions,
): Unconfirmed {
  return {
    instance,
    host: row?.host ?? '?',
    seenMs,
    ...(row && {
      closedByMs: {
        reads: committed.atMs + row.staleAfterReadsMs,
        streams: committed.atMs + row.staleAfterStreamsMs,
      },
    }),
  }
}
