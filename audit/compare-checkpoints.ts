import type { PublicKey } from '../policy/public-key.ts'
import type { ChainHead } from './chain.ts'
import { readSigned } from './checkpoint.ts'

/** The last checkpoint that a process put into the store. */
export interface KeptCheckpoint extends ChainHead {
  readonly instance: string
  readonly sig: string
  /** Where the fleet's chain was after it, `n:h`. */
  readonly fleet: string
  readonly atMs: number
}

/** Holds the records of all files against what the store has of them. */
export interface CheckpointComparison {
  /** In the order of the chain. `fleet`: of a checkpoint, where the fleet's chain was. */
  add(record: ChainHead & { readonly instance: string; readonly fleet?: string | undefined }): void
  /** One line for each thing that is missing or another than it was; none: everything stands. */
  problems(): Promise<readonly string[]>
}

/**
 * What a chain cannot tell by itself: that its end was cut off, that it was sealed anew, that a file is not there. Read
 * the store before the files: a running process goes on. Without `keys` the signatures in the store are not checked.
 */
export function compareCheckpoints(
  kept: { readonly head: string; readonly checkpoints: readonly KeptCheckpoint[] },
  keys?: ReadonlyMap<string, PublicKey>,
): CheckpointComparison {
  const byInstance = new Map(kept.checkpoints.map((one) => [one.instance, one]))
  const links = new Map([kept.head, ...kept.checkpoints.map(({ fleet }) => fleet)].map(splitHead))
  const storeEnd = splitHead(kept.head)[0]
  const lastSeq = new Map<string, number>()
  const found = new Set<string>()
  const witnessed: string[] = []
  return {
    add({ instance, seq, hash, fleet }) {
      lastSeq.set(instance, seq)
      const one = byInstance.get(instance)
      if (one?.seq === seq && one.hash === hash) found.add(instance)
      if (fleet === undefined) return
      const [n, link] = splitHead(fleet)
      const isOther = links.has(n) && links.get(n) !== link
      if ((n > storeEnd || isOther) && witnessed.length < maxWitnessed) {
        witnessed.push(
          `the store lost or changed checkpoints: record ${seq} of sidecar ${instance} has seen its position ${n}`,
        )
      }
    },
    async problems() {
      const problems = [...witnessed]
      for (const one of kept.checkpoints) {
        const signed = keys && (await readSigned(one, keys))
        if (typeof signed === 'string') {
          problems.push(`in the store, sidecar ${one.instance}: ${signed}`)
        } else if (!found.has(one.instance)) problems.push(lossOf(one, lastSeq.get(one.instance)))
      }
      return problems
    },
  }
}

const maxWitnessed = 100

function lossOf({ instance, seq, atMs }: KeptCheckpoint, last: number | undefined): string {
  const signed = `sidecar ${instance} signed up to record ${seq} at ${new Date(atMs).toISOString()}`
  if (last === undefined) return `missing file: ${signed}, and no file has its records`
  if (last < seq) return `missing tail: ${signed}, and its file ends at ${last}`
  return `rewritten: ${signed}, and the file has another record there`
}

function splitHead(head: string): readonly [n: number, link: string] {
  const at = head.indexOf(':')
  return [Number(head.slice(0, at)), head.slice(at + 1)]
}
