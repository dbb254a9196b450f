import { decide } from '../policy/decide.ts'
import { isDenial } from '../policy/denial.ts'
import type { Arrival } from './arrival.ts'
import { AuditEntry } from './audit-entry.ts'
import { credentialFor } from './credential-for.ts'
import { describe } from './describe.ts'
import { identify } from './identify.ts'
import { observedUntilMs } from './observed-only.ts'
import { routeArrival } from './route-arrival.ts'
import { send } from './send.ts'
import type { Sidecar } from './sidecar.ts'

/** One request, from the agent's socket to the upstream and back. Read it top to bottom. */
export async function handle(arrival: Arrival, sidecar: Sidecar): Promise<void> {
  // One snapshot for the whole request: a reload in between changes nothing for it.
  const { snapshot, clock } = sidecar
  const entry = new AuditEntry(arrival, { sidecar, snapshot })
  try {
    // 1 route: what is decided is what is sent, byte for byte.
    const route = routeArrival(arrival, snapshot)
    if (isDenial(route)) return await entry.refuse(route)
    entry.routed(route)

    // 2 identify: a cached verification never skips what follows.
    const agent = await identify(arrival, snapshot)
    if (isDenial(agent)) return await entry.refuse(agent)
    entry.identified(agent)

    // 3 grant: the agent must be its subject.
    const task = await sidecar.tasks.resolve(arrival, { agent, route, snapshot })
    if (isDenial(task)) return await entry.refuse(task)
    entry.granted(task)

    // 4 describe: a body that policy must see is read whole, or the request is refused.
    const described = await describe(arrival, { route, limits: snapshot.config.limits })
    if (isDenial(described)) return await entry.refuse(described)
    entry.described(described)

    // 5 track before deciding: a revocation that lands in between still cuts this exchange.
    const { chain } = task
    const { operation } = described
    const { upstream } = route
    const exchange = sidecar.track({ chain, operation, upstreamName: upstream.facts.name })
    if (isDenial(exchange)) return await entry.refuse(exchange)
    using tracked = exchange
    entry.tracked(tracked)

    // 6 decide: pure and synchronous; nothing can change between reading the view and acting on it.
    const asked = {
      agent,
      chain,
      operation,
      upstream: upstream.facts,
      view: sidecar.feed.view,
      nowMs: clock.now(),
    }
    const decision = decide({
      ...asked,
      engine: snapshot.engine,
      unsafeObserveUntilMs: observedUntilMs(snapshot.config, { route, chain }),
      monotonicMs: clock.monotonic(),
      staleAfterWritesMs: snapshot.config.revocation.staleAfterWrites,
      staleAfterReadsMs: snapshot.config.revocation.staleAfterReads,
    })

    // What shadow policies say is put on record with it, and never enforced.
    entry.compared(snapshot.policies.shadow?.compare(decision, asked))

    // 7 record: the decision is on file before anything is forwarded.
    if (decision.outcome !== 'allow') return await entry.refuse(decision)
    await entry.decided(decision)

    // 8 credential: for this task and this upstream alone.
    const credential = await credentialFor(sidecar, { agent, chain, upstream, exchange })
    if (isDenial(credential)) return await entry.refuse(credential)
    entry.holds(credential)

    // 9 forward: strip, inject last, stream both ways until the end or the cut.
    const admitted = {
      sidecar,
      snapshot,
      entry,
      route,
      agent,
      task,
      described,
      exchange,
      credential,
    }
    entry.ended(await send(arrival, admitted))
  } catch (error) {
    // Anything unforeseen is a refusal, never a pass.
    await entry.fault(error)
  } finally {
    // 10 record: status, bytes each way, cut or complete.
    await entry.close()
  }
}
