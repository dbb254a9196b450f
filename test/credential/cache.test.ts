import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CredentialCache } from '../../credential/cache.ts'
import {
  CredentialError,
  type Credential,
  type Issuer,
  type IssueRequest,
} from '../../credential/issuer.ts'
import { grantChain } from '../../policy/grant.ts'
import { agent, grant, nowMs, rest } from '../kit/decide-input.ts'
import { manualClock } from '../kit/manual-clock.ts'

const lifeMs = 100_000

describe('CredentialCache.get()', () => {
  test('never lends a credential to another task, agent, upstream or grant', async () => {
    const { cache, issuer, request } = world()
    const first = await cache.get(issuer, request())
    const others = [
      request({ txn: 'task-2' }),
      request({ grantDigest: 'y' }),
      { ...request(), agent: { ...agent, id: `${agent.id}/b` as const } },
      { ...request(), upstream: { ...rest, name: 'other' } },
    ]
    for (const other of others)
      expect((await cache.get(issuer, other)).digest).not.toBe(first.digest)
    expect((await cache.get(issuer, request())).digest).toBe(first.digest)
    expect(cache.size).toBe(5)
  })

  test('gives each task its own when many ask in any order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 5 }), { maxLength: 40 }), async (tasks) => {
        const { cache, issuer, request } = world()
        const got = await Promise.all(
          tasks.map((task) => cache.get(issuer, request({ txn: `task-${task}` }))),
        )
        const digests = new Map(tasks.map((task, index) => [task, got[index]?.digest]))
        expect(new Set(digests.values()).size).toBe(new Set(tasks).size)
        expect(got.map(({ digest }) => digest)).toEqual(tasks.map((task) => digests.get(task)))
      }),
    )
  })

  test('issues a new one when 80 % of the life has passed, and not before', async () => {
    const { cache, issuer, request, clock } = world()
    await cache.get(issuer, request())
    clock.advance(lifeMs * 0.8 - 1)
    expect((await cache.get(issuer, request())).digest).toBe('1')
    clock.advance(1)
    expect((await cache.get(issuer, request())).digest).toBe('2')
    expect((await cache.get(issuer, request())).digest).toBe('2')
  })

  test('issues once when many ask at the same time', async () => {
    const { cache, issuer, request, issued } = world()
    const got = await Promise.all(Array.from({ length: 50 }, () => cache.get(issuer, request())))
    expect(new Set(got).size).toBe(1)
    expect(issued()).toBe(1)
  })

  test('fails for all who wait when issuing fails, and asks again for the next', async () => {
    const { cache, issuer, request, state, issued } = world()
    state.failsWith = new CredentialError('signer down')
    const waiting = [cache.get(issuer, request()), cache.get(issuer, request())]
    for (const got of await Promise.allSettled(waiting))
      expect(got).toMatchObject({ reason: { code: 'ERR_CREDENTIAL_UNAVAILABLE' } })
    expect(issued()).toBe(1)
    state.failsWith = undefined
    expect((await cache.get(issuer, request())).digest).toBe('2')
  })

  test('falls back to the old one until the millisecond in which that expires', async () => {
    const { cache, issuer, request, clock, state } = world()
    await cache.get(issuer, request())
    state.failsWith = new CredentialError('signer down')
    clock.advance(lifeMs - 1)
    expect((await cache.get(issuer, request())).digest).toBe('1')
    clock.advance(1)
    await expect(cache.get(issuer, request())).rejects.toBe(state.failsWith)
  })

  test('does not fall back to one that was revoked while the new one was being issued', async () => {
    const { cache, issuer, request, clock, state } = world()
    await cache.get(issuer, request())
    clock.advance(lifeMs * 0.9)
    state.gate = Promise.withResolvers()
    state.failsWith = new CredentialError('signer down')
    const refreshing = cache.get(issuer, request())
    cache.revokeCovered('task:task-1')
    state.gate.resolve()
    await expect(refreshing).rejects.toBe(state.failsWith)
  })

  test('does not fall back to one that expired while the new one was being issued', async () => {
    const { cache, issuer, request, clock, state } = world()
    await cache.get(issuer, request())
    clock.advance(lifeMs - 1)
    state.gate = Promise.withResolvers()
    state.failsWith = new CredentialError('signer down')
    const refreshing = cache.get(issuer, request())
    clock.advance(1)
    state.gate.resolve()
    await expect(refreshing).rejects.toBe(state.failsWith)
  })

  test('never keeps a static key: its issuer watches the file', async () => {
    const { cache, issuer, request, state, issued } = world()
    state.lifeMs = Number.POSITIVE_INFINITY
    await cache.get(issuer, request())
    await cache.get(issuer, request())
    expect([cache.size, issued()]).toEqual([0, 2])
  })
})

describe('CredentialCache.revokeCovered()', () => {
  test.each(['task:task-1', `agent:${agent.id}`, 'upstream:api', 'credential:iss#1', 'all'])(
    'drops and ends what %s covers',
    async (subject) => {
      const { cache, issuer, request, revoked } = world()
      await cache.get(issuer, request())
      expect(cache.revokeCovered(subject).dropped).toBe(1)
      expect(revoked).toEqual(['1'])
      expect((await cache.get(issuer, request())).digest).toBe('2')
    },
  )

  test('leaves what it does not cover', async () => {
    const { cache, issuer, request, revoked } = world()
    await cache.get(issuer, request())
    for (const subject of [
      'task:task-2',
      'task:task',
      'upstream:ap',
      'tool:api/x',
      'credential:iss#2',
    ])
      expect(cache.revokeCovered(subject).dropped).toBe(0)
    expect(revoked).toEqual([])
    expect((await cache.get(issuer, request())).digest).toBe('1')
  })

  test('does not keep what was being issued meanwhile, nor lend it to who comes later', async () => {
    const { cache, issuer, request, state } = world()
    state.gate = Promise.withResolvers()
    const before = cache.get(issuer, request())
    cache.revokeCovered('task:task-1')
    const after = cache.get(issuer, request())
    state.gate.resolve()
    expect([(await before).digest, (await after).digest]).toEqual(['1', '2'])
    expect((await cache.get(issuer, request())).digest).toBe('2')
  })
})

describe('CredentialCache.clear()', () => {
  test('forgets what is held and what is being issued: a new configuration may issue others', async () => {
    const { cache, issuer, request, state } = world()
    await cache.get(issuer, request({ txn: 'held' }))
    state.gate = Promise.withResolvers()
    const old = cache.get(issuer, request())
    cache.clear()
    expect(cache.size).toBe(0)
    state.gate.resolve()
    expect((await old).digest).toBe('2')
    expect(cache.size).toBe(0)
    expect((await cache.get(issuer, request({ txn: 'held' }))).digest).toBe('3')
  })

  test('never gives what the issuer of a replaced configuration issues to the new one', async () => {
    const { cache, issuer, request } = world()
    const fresh = world({ digest: 'fresh' })
    cache.clear()
    expect((await cache.get(issuer, request())).digest).toBe('1')
    expect((await cache.get(fresh.issuer, request())).digest).toBe('fresh1')
  })
})

interface RequestOptions {
  readonly txn?: string
  readonly grantDigest?: string
}

interface State {
  gate: PromiseWithResolvers<void> | undefined
  failsWith: CredentialError | undefined
  lifeMs: number
}

/** A cache over an issuer that counts and that can be held and broken. */
function world({ digest = '' }: { readonly digest?: string } = {}) {
  const clock = manualClock(nowMs)
  const state: State = { gate: undefined, failsWith: undefined, lifeMs }
  const revoked: string[] = []
  let issued = 0
  const issuer: Issuer = {
    kind: 'mint',
    revocationClass: 'R1',
    slots: { headers: [], query: [] },
    async issue(request) {
      issued += 1
      const name = `${digest}${issued}`
      await state.gate?.promise
      if (state.failsWith) throw state.failsWith
      return credential(name, { expiresAtMs: request.nowMs + state.lifeMs, revoked })
    },
  }
  return {
    cache: new CredentialCache({ clock }),
    clock,
    issuer,
    state,
    revoked,
    issued: () => issued,
    request: ({ txn = 'task-1', grantDigest = txn }: RequestOptions = {}): IssueRequest => ({
      agent,
      chain: grantChain(grant({ txn, s256: grantDigest })),
      upstream: rest,
      nowMs: clock.now(),
    }),
  }
}

function credential(
  digest: string,
  { expiresAtMs, revoked }: { readonly expiresAtMs: number; readonly revoked: string[] },
): Credential {
  return {
    kind: 'mint',
    digest,
    subject: `credential:iss#${digest}`,
    expiresAtMs,
    slots: () => ({ headers: [], query: [] }),
    revoke: () => {
      revoked.push(digest)
      return Promise.resolve('revoked')
    },
  }
}
