import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { grantChain } from '../../policy/grant.ts'
import type { Operation } from '../../policy/types.ts'
import type { Cut, Cuttable, CutHow, Exchange } from '../../proxy/exchange.ts'
import { Exchanges } from '../../proxy/exchanges.ts'
import { agent, call, chainOf, grant, http, list, nowMs, record } from '../kit/decide-input.ts'
import { manualClock } from '../kit/manual-clock.ts'
import { names } from '../kit/tokens.ts'

describe('Exchanges.cutCovered()', () => {
  test.each([
    ['all', true],
    ['task:task-1', true],
    ['task:task-2', false],
    ['task:task', false],
    [`agent:${agent.id}`, true],
    [`agent:${agent.id}/b`, false],
    ['upstream:files', true],
    ['upstream:file', false],
    ['tool:files/read', true],
    ['tool:files/write', false],
    ['tool:api/read', false],
    [`grant:${names.approver}#g1`, true],
    [`grant:${names.approver}#g2`, false],
  ])('treats a tool call of the task by the subject %s as covered: %s', (subject, covered) => {
    const { exchanges, track } = world()
    const { exchange } = track({ operation: call('read') })
    const count = exchanges.cutCovered(record({ subject }), 'task-terminated')
    expect([count, exchange.cut !== undefined]).toEqual([Number(covered), covered])
  })

  test.each([
    ['a list', list()],
    ['a plain request', http('GET')],
  ])('covers %s by no tool', (_, operation) => {
    const { exchanges, track } = world()
    track({ operation })
    expect(exchanges.cutCovered(record({ subject: 'tool:files/read' }), 'policy-denied')).toBe(0)
  })

  test('covers a task by any grant that it rests on', () => {
    const { exchanges, track } = world()
    track({ chain: chainOf([grant({ jti: 'root' }), grant({ jti: 'leaf' })]) })
    const subject = `grant:${names.approver}#root`
    expect(exchanges.cutCovered(record({ subject }), 'task-terminated')).toBe(1)
  })

  test('says why, when and how, and cuts nothing twice', () => {
    const { exchanges, track, clock } = world()
    clock.advance(40)
    const { exchange, calls } = track()
    const revocation = record({ subject: 'all' })
    expect(exchanges.cutCovered(revocation, 'task-terminated')).toBe(1)
    expect(exchanges.cutCovered(revocation, 'agent-quarantined')).toBe(0)
    expect(exchange.cut).toEqual({ code: 'task-terminated', revocation, atMonotonicMs: 40 })
    expect([exchange.cutHow, exchange.cutAfterMs]).toEqual(['reset', 0])
    expect(calls).toEqual(['client', 'upstream'])
  })

  test('sets every flag first, then ends all clients, then the upstreams in turns of 100', async () => {
    const { exchanges, track } = world()
    const order: string[] = []
    const tracked: Exchange[] = []
    for (let index = 0; index < 250; index += 1) {
      const { exchange } = track({
        target: {
          cutClient: () => {
            order.push(tracked.every(({ cut }) => cut !== undefined) ? 'client' : 'early')
            return 'reset'
          },
          cutUpstream: () => void order.push('upstream'),
        },
      })
      tracked.push(exchange)
    }
    expect(exchanges.cutAll('control-plane-stale')).toBe(250)
    expect(order.slice(0, 250).every((one) => one === 'client')).toBe(true)
    expect(order.slice(250)).toEqual(Array.from({ length: 100 }, () => 'upstream'))
    await new Promise((resolve) => setImmediate(() => setImmediate(() => setImmediate(resolve))))
    expect(order.slice(250)).toEqual(Array.from({ length: 250 }, () => 'upstream'))
  })

  test('ends both sides at once when it was cut before it was attached', () => {
    const { exchanges, clock } = world()
    const chain = grantChain(grant())
    const exchange = exchanges.track({ chain, operation: http('GET'), upstreamName: 'files' })
    exchanges.cutAll('task-terminated')
    clock.advance(7)
    const { calls, target } = recorder()
    exchange.attach(target)
    expect(calls).toEqual(['client', 'upstream'])
    expect(exchange.cutAfterMs).toBe(7)
  })

  test('survives that ending one client removes it and others from the list', () => {
    const { exchanges, track } = world()
    const tracked: Exchange[] = []
    const target: Cuttable = {
      cutClient() {
        for (const exchange of tracked) exchange[Symbol.dispose]()
        return 'reset'
      },
      cutUpstream: () => undefined,
    }
    for (let index = 0; index < 5; index += 1) tracked.push(track({ target }).exchange)
    expect(exchanges.cutAll('task-terminated')).toBe(5)
    expect(tracked.every(({ cutHow }) => cutHow === 'reset')).toBe(true)
    expect(exchanges.count).toBe(0)
  })
})

describe('Exchanges.cutExpired()', () => {
  test('cuts from the very millisecond in which the first grant of a chain ends', () => {
    const { exchanges, track } = world()
    const ends = [grant({ expiresAtMs: nowMs + 10 }), grant({ jti: 'leaf' })] as const
    const { exchange: short } = track({ chain: chainOf(ends) })
    const { exchange: long } = track()
    expect(exchanges.cutExpired(nowMs + 9)).toBe(0)
    expect(exchanges.cutExpired(nowMs + 10)).toBe(1)
    expect([short.cut?.code, long.cut]).toEqual(['task-expired', undefined])
    expect(exchanges.cutExpired(nowMs + 11)).toBe(0)
  })
})

describe('Exchanges.track()', () => {
  type Step = readonly ['track' | 'remove' | 'again' | 'cut', number]
  const step: fc.Arbitrary<Step> = fc.tuple(
    fc.constantFrom('track', 'track', 'remove', 'again', 'cut'),
    fc.nat({ max: 30 }),
  )

  test('keeps exactly what a Set would, in any order of removals, second removals and cuts', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const { exchanges, track } = world()
        const model = new Set<Exchange>()
        const removed: Exchange[] = []
        const cutCounts: number[] = []
        const modelCounts: number[] = []
        for (const [kind, number] of steps) {
          const at = [...model][number % Math.max(1, model.size)]
          if (kind === 'track') model.add(track({ txn: `task-${number % 3}` }).exchange)
          else if (kind === 'cut') {
            const subject = `task:task-${number % 3}`
            const before = uncut(model)
            cutCounts.push(exchanges.cutCovered(record({ subject }), 'task-terminated'))
            modelCounts.push(before - uncut(model))
          } else if (kind === 'again')
            removed[number % Math.max(1, removed.length)]?.[Symbol.dispose]()
          else if (at) {
            at[Symbol.dispose]()
            model.delete(at)
            removed.push(at)
          }
          expect(exchanges.count).toBe(model.size)
        }
        expect(cutCounts).toEqual(modelCounts)
        exchanges.cutAll('control-plane-stale')
        expect([...model].every(({ cut }) => cut !== undefined)).toBe(true)
        expect(removed.every(({ cut }) => cut?.code !== 'control-plane-stale')).toBe(true)
      }),
    )
  })
})

describe('Exchanges.liveTasks()', () => {
  test('counts an exchange for each task of its chain, and names the parent of each', () => {
    const { exchanges, track } = world()
    const root = grant({ txn: 'T-1', jti: 'root' })
    track({ chain: chainOf([root, grant({ txn: 'T-1.1', jti: 'leaf' })]) })
    track({ chain: chainOf([root, grant({ txn: 'T-1', jti: 'again' })]) })
    track({ txn: 'T-2' })
    expect(exchanges.liveTasks(10)).toEqual(
      new Map([
        ['T-1', { exchanges: 2 }],
        ['T-1.1', { exchanges: 1, parent: 'T-1' }],
        ['T-2', { exchanges: 1 }],
      ]),
    )
    expect([...exchanges.liveTasks(1).keys()]).toEqual(['T-1'])
  })
})

function uncut(exchanges: ReadonlySet<Exchange>): number {
  return [...exchanges].filter(({ cut }) => cut === undefined).length
}

interface Options {
  readonly txn?: string
  readonly chain?: ReturnType<typeof grantChain>
  readonly operation?: Operation
  readonly target?: Cuttable
}

function world() {
  const clock = manualClock(nowMs)
  const exchanges = new Exchanges({ clock })
  return {
    clock,
    exchanges,
    track: (options: Options = {}) => {
      const { txn = 'task-1', operation = http('GET') } = options
      const { calls, target } = recorder()
      const exchange = exchanges.track({
        chain: options.chain ?? grantChain(grant({ txn })),
        operation,
        upstreamName: 'files',
      })
      exchange.attach(options.target ?? target)
      return { exchange, calls }
    },
  }
}

function recorder() {
  const calls: string[] = []
  const target: Cuttable = {
    cutClient(_cut: Cut): CutHow {
      calls.push('client')
      return 'reset'
    },
    cutUpstream: () => void calls.push('upstream'),
  }
  return { calls, target }
}
