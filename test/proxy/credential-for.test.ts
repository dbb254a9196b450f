import { describe, expect, test } from 'vitest'
import { CredentialCache } from '../../credential/cache.ts'
import type { Credential, Issuer } from '../../credential/issuer.ts'
import { grantChain } from '../../policy/grant.ts'
import { RevocationSet } from '../../policy/revocation-set.ts'
import { credentialFor } from '../../proxy/credential-for.ts'
import { Exchanges } from '../../proxy/exchanges.ts'
import { createMetrics } from '../../proxy/metrics.ts'
import { agent, grant, http, nowMs, record, rest } from '../kit/decide-input.ts'
import { manualClock } from '../kit/manual-clock.ts'

const subject = 'credential:https://mint.example.org#j1'

/** What `credentialFor()` needs, over an issuer that waits until it is let go. */
function world({ named = true }: { readonly named?: boolean } = {}) {
  const clock = manualClock(nowMs)
  const gate = Promise.withResolvers<void>()
  const set = new RevocationSet()
  const exchanges = new Exchanges({ clock })
  const issued: Credential = {
    kind: 'mint',
    digest: 'd1',
    ...(named && { subject }),
    expiresAtMs: nowMs + 60_000,
    slots: () => ({ headers: [], query: [] }),
    revoke: () => Promise.resolve('unsupported'),
  }
  const issuer: Issuer = {
    kind: 'mint',
    revocationClass: 'R1',
    slots: { headers: [], query: [] },
    issue: () => gate.promise.then(() => issued),
  }
  const chain = grantChain(grant())
  const exchange = exchanges.track({ chain, operation: http('GET'), upstreamName: 'api' })
  const sidecar = {
    credentials: new CredentialCache({ clock }),
    clock,
    metrics: createMetrics(),
    feed: { view: { epoch: '1:h', ageMs: () => 0, find: set.find.bind(set) } },
  }
  const asked = credentialFor(sidecar, {
    agent,
    chain,
    upstream: { issuer, facts: rest },
    exchange,
  })
  /** As the feed does: in force, then cut, in one tick. */
  const revoke = (): number => {
    const revocation = record({ subject })
    set.add(revocation)
    return exchanges.cutCovered(revocation, 'task-terminated')
  }
  return { asked, issued, gate, exchange, revoke }
}

describe('credentialFor()', () => {
  test('refuses a credential on which a record landed while it was being issued', async () => {
    const { asked, gate, revoke } = world()
    expect(revoke()).toBe(0)
    gate.resolve()
    expect(await asked).toMatchObject({
      outcome: 'deny',
      code: 'task-terminated',
      detail: `revoke r1 of ${subject}`,
      revocation: { rid: 'r1' },
    })
  })

  test('leaves no gap: a record that lands after that look cuts the exchange', async () => {
    const { asked, issued, gate, exchange, revoke } = world()
    gate.resolve()
    expect(await asked).toBe(issued)
    expect(revoke()).toBe(1)
    expect(exchange.cut).toMatchObject({ revocation: { rid: 'r1' } })
  })

  test('gives one that has no name of its own, and no record on a name covers it', async () => {
    const { asked, issued, gate, revoke } = world({ named: false })
    gate.resolve()
    expect(await asked).toBe(issued)
    expect(revoke()).toBe(0)
  })
})
