import { LRUCache } from 'lru-cache'
import { deny, isDenial } from '../policy/denial.ts'
import { checkGrantHolder } from '../policy/grant.ts'
import type { Agent, Clock, Denial, GrantChain } from '../policy/types.ts'
import type { GrantStore } from '../revocation/grant-store.ts'
import type { Arrival } from './arrival.ts'
import type { Routed } from './route-arrival.ts'
import type { Snapshot } from './snapshot.ts'
import { taskCarrier, type TaskCarrier } from './task-carrier.ts'

/** The task of a request: its verified grant chain, and how the request named it. */
export interface Task {
  readonly chain: GrantChain
  readonly carrier: TaskCarrier['carrier'] | 'file'
}

export interface TaskResolver {
  /** Every carrier must agree on one task, and the agent must be the subject of its grant. */
  resolve(arrival: Arrival, context: ResolveContext): Promise<Task | Denial>
}

interface ResolveContext {
  readonly agent: Agent
  readonly route: Routed
  readonly snapshot: Snapshot
}

/** How long a stored grant's text is used before the store is asked again; during an outage it serves until it expires. */
const storedForMs = 5_000
const maxStoredTexts = 10_000

interface StoredText {
  readonly compact: string
  readonly readAtMonotonicMs: number
}

export function createTaskResolver(options: {
  readonly store: GrantStore
  readonly clock: Clock
}): TaskResolver {
  const { store, clock } = options
  const texts = new LRUCache<string, StoredText>({ max: maxStoredTexts })

  return {
    async resolve({ req }, { agent, route, snapshot }) {
      const carried = taskCarrier(req.rawHeaders, route.pathTxn)
      if (carried && isDenial(carried)) return carried
      const found = await findGrant(carried, snapshot)
      if (isDenial(found)) return found

      const alone = await snapshot.grants.verify(found.compact)
      if (isDenial(alone)) return alone
      const named = carried?.txn
      if (named !== undefined && named !== alone.leaf.txn) {
        return deny('task-conflict', 'the task selector and the grant name different tasks')
      }
      // Before its ancestors are looked for: only the grantee learns how they are (TG-9).
      const foreign = checkGrantHolder(alone, agent)
      if (foreign) return foreign
      const { carrier } = found
      const presented = carried?.ancestors ?? []
      if (!alone.leaf.parent && presented.length === 0) return { chain: alone, carrier }
      const chain = await snapshot.grants.complete(alone, { presented, stored })
      if (isDenial(chain)) return chain
      return checkGrantHolder(chain, agent) ?? { chain, carrier }
    },
  }

  async function findGrant(
    carried: TaskCarrier | undefined,
    snapshot: Snapshot,
  ): Promise<{ compact: string; carrier: Task['carrier'] } | Denial> {
    const pinned = snapshot.grantFile?.compact()
    if (pinned !== undefined) {
      // The pod is bound to one task: another grant is a conflict, whoever signed it.
      if (carried?.grant !== undefined && carried.grant !== pinned) {
        return deny('task-conflict', 'this sidecar is bound to another grant')
      }
      return { compact: pinned, carrier: 'file' }
    }
    if (snapshot.grantFile) return deny('task-grant-required', 'the grant file cannot be read')
    if (!carried) return deny('task-grant-required', 'no task carrier')
    if (carried.grant !== undefined) return { compact: carried.grant, carrier: carried.carrier }
    if (carried.txn === undefined) return deny('task-grant-required', 'no task carrier')
    const compact = await stored(carried.txn)
    return typeof compact === 'string' ? { compact, carrier: carried.carrier } : compact
  }

  async function stored(txn: string): Promise<string | Denial> {
    const held = texts.get(txn)
    if (held && clock.monotonic() - held.readAtMonotonicMs < storedForMs) return held.compact
    try {
      const compact = await store.get(txn)
      // The same words as for a grant of somebody else: a guess learns nothing (TG-9).
      if (compact === undefined) {
        // A later outage must not bring it back.
        texts.delete(txn)
        return deny('task-grant-invalid', 'no grant of this task is stored')
      }
      texts.set(txn, { compact, readAtMonotonicMs: clock.monotonic() })
      return compact
    } catch {
      if (held) return held.compact
      return deny('control-plane-stale', 'the grant store did not answer')
    }
  }
}

/** A resolver that, once told to drain, serves only the tasks that it served before. */
export interface DrainableTaskResolver extends TaskResolver {
  drain(): void
}

/** Tasks that are remembered as known. */
const maxKnownTasks = 10_000

export function drainable(resolver: TaskResolver): DrainableTaskResolver {
  const known = new LRUCache<string, true>({ max: maxKnownTasks })
  let draining = false
  return {
    drain() {
      draining = true
    },
    async resolve(arrival, context) {
      const task = await resolver.resolve(arrival, context)
      if (isDenial(task)) return task
      const { txn } = task.chain.leaf
      if (draining && !known.has(txn)) {
        return deny('control-plane-stale', 'shutting down: no new task is taken')
      }
      if (known.get(txn) === undefined) known.set(txn, true)
      return task
    },
  }
}
