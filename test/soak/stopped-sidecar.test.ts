import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { systemClock } from '../../proxy/system-clock.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { openFlow } from '../kit/live-flows.ts'
import { names } from '../kit/tokens.ts'
import { startWorld, type World } from '../kit/world.ts'

const rounds = Number(process.env['SOAK_STOPS'] ?? 4)
const staleAfterMs = 500
/** As many on connections that are there already as on new ones, which the kernel takes while the process stands. */
const queuedOnEach = 20

test(
  `a sidecar that was stopped while a task was revoked forwards nothing of it when it goes on (${rounds} rounds)`,
  async () => {
    const bounds = `syncInterval: 100ms, staleAfterWrites: ${staleAfterMs}ms, staleAfterReads: ${staleAfterMs}ms`
    await using world = await startWorld({ revocation: bounds })
    await using committer = createRedisCommitter({
      redis: { url: world.redis.url, prefix: 'chaperone' },
      trustDomain: names.trustDomain,
      clock: systemClock,
    })
    for (let round = 0; round < rounds; round++) {
      const txn = `T-${round}`
      await world.approve(txn)
      expect(await statuses(ask(world, { txn, path: 'before', count: queuedOnEach }))).toEqual(
        new Set([200]),
      )
      const flow = openFlow(world, { kind: 'sse', txn })
      await flow.live

      await stop(world)
      world.upstream.forget()
      // Of two rounds, one leaves the record in its sockets, and one leaves it nothing but the age of its view.
      const isCutOff = round % 2 === 1
      if (isCutOff) await disconnect(world)
      const queued = ask(world, { txn, path: 'queued', count: 2 * queuedOnEach })
      await committer.commit({
        rid: `r-${round}`,
        op: 'revoke',
        subject: `task:${txn}`,
        reason: 'while it stood',
        by: 'ops',
        expiresAtMs: 0,
      })
      if (isCutOff) world.redis.freeze()
      await delay(2 * staleAfterMs)
      expect(await Promise.race([...queued, Promise.resolve('nothing answers')])).toBe(
        'nothing answers',
      )
      world.sidecar.kill('SIGCONT')

      const answered = await statuses(queued)
      const refusals = isCutOff ? [503] : [403, 503]
      expect([...answered].filter((status) => !refusals.includes(status))).toEqual([])
      world.redis.thaw()
      expect(await flow.ended).toEqual({ how: 'reset' })
      await world.sidecar.readyIs(true, 30_000)
      // What comes after all of it shows that the upstream would have told.
      await world.approve(`${txn}-next`)
      const [next] = ask(world, { txn: `${txn}-next`, path: 'next', count: 1 })
      expect(await next).toBe(200)
      await world.upstream.seen(({ url }) => url === '/next-0', 15_000)
      expect(world.upstream.events.filter(({ url }) => url?.startsWith('/queued'))).toEqual([])
      expect(await statuses(ask(world, { txn, path: 'queued', count: 1 }))).toEqual(new Set([403]))
    }
  },
  60_000 + rounds * 30_000,
)

/** Every client but this one: what is committed from now on comes to nobody before it has connected again. */
async function disconnect({ redis }: World): Promise<void> {
  for (const type of ['pubsub', 'normal']) await redis.cli('CLIENT', 'KILL', 'TYPE', type)
}

function ask(
  world: World,
  { txn, path, count }: { readonly txn: string; readonly path: string; readonly count: number },
): readonly Promise<number>[] {
  return Array.from({ length: count }, async (_, index) => {
    const url = `${world.sidecar.agentUrl}/api/${path}-${index}`
    const answer = await fetch(url, { headers: world.headers(txn) })
    await answer.arrayBuffer()
    return answer.status
  })
}

async function statuses(answers: readonly Promise<number>[]): Promise<ReadonlySet<number>> {
  return new Set(await Promise.all(answers))
}

/** The signal is taken at once or a moment later. */
async function stop({ sidecar }: World): Promise<void> {
  sidecar.kill('SIGSTOP')
  await vi.waitFor(
    async () =>
      expect(await readFile(`/proc/${sidecar.pid}/status`, 'utf8')).toMatch(/^State:\tT/m),
    { timeout: 30_000, interval: 5 },
  )
}
