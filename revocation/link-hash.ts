import { createHash } from 'node:crypto'

/**
 * The link of a log entry: SHA-1 over the previous link and the entry's bytes, because that is what a Redis script can
 * compute. It tells one history from another after a failover or a restore; it is no defence against the store itself.
 */
export function linkHash(previous: string, entry: string): string {
  return createHash('sha1').update(previous).update(entry).digest('hex')
}

/** The position before the first entry: what a store without a head has. */
export const genesis: Position = { n: 0, h: '0' }

/** A place in the log: how many entries, and the link of the last. Text form `n:h`. */
export interface Position {
  readonly n: number
  readonly h: string
}

export function formatPosition({ n, h }: Position): string {
  return `${n}:${h}`
}

/** Reads `n:h`; undefined when it is anything else. */
export function parsePosition(text: string): Position | undefined {
  const [, n, h] = /^(\d{1,15}):([0-9a-f]{1,40})$/.exec(text) ?? []
  return n === undefined || h === undefined ? undefined : { n: Number(n), h }
}
