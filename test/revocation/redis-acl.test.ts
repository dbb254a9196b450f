import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { createPresence } from '../../revocation/presence.ts'
import { createPresenceReader } from '../../revocation/presence-reader.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { createRedisGrantStore } from '../../revocation/redis-grant-store.ts'
import { revocationChannel } from '../../revocation/redis-keys.ts'
import { startRedis } from '../kit/redis.ts'
import { startRedisCluster } from '../kit/redis-cluster.ts'
import { untilTrue } from '../kit/until-true.ts'
import { temporaryFile } from '../kit/world.ts'
import { Acknowledged, draftOf, scopeOf, startWatchedFeed } from '../kit/watched-feed.ts'

const page = readFileSync(new URL('../../docs/revocation.md', import.meta.url), 'utf8')
/** The users of docs/revocation.md, word for word. */
const users = [...page.matchAll(/^ACL (SETUSER .*)$/gm)].map(([, command]) =>
  String(command).split(' '),
)
const passwords = { chaperone: 'SIDECAR-PASSWORD', operator: 'OPERATOR-PASSWORD' } as const

async function scopeAs(url: string, username: keyof typeof passwords) {
  const at = scopeOf(url)
  const passwordFile = await temporaryFile('password', passwords[username])
  return { ...at, redis: { ...at.redis, username, passwordFile } }
}

test.each(['server', 'cluster'] as const)(
  'the users of the documentation are enough for everything, on a %s',
  async (kind) => {
    await using stack = new AsyncDisposableStack()
    const { url, nodes } = stack.use(await startEngine(kind))
    for (const node of nodes) {
      for (const user of users) expect(await node.cli('ACL', ...user)).toBe('OK')
      await node.cli('ACL', 'SETUSER', 'default', 'resetpass', '>ADMIN')
      await node.cli('--no-auth-warning', '-a', 'ADMIN', 'ACL', 'LOG', 'RESET')
    }
    const sidecar = await scopeAs(url, 'chaperone')
    const operator = await scopeAs(url, 'operator')

    const warnings: string[] = []
    const watched = stack.use(startWatchedFeed(sidecar, new Acknowledged()))
    const log = { warn: (fields: object) => void warnings.push(JSON.stringify(fields)) }
    const presence = stack.use(createPresence({ ...sidecar, log }))
    const grants = stack.use(createRedisGrantStore(sidecar))
    const committer = stack.use(createRedisCommitter(operator))
    const operatorGrants = stack.use(createRedisGrantStore(operator))
    const reader = stack.use(createPresenceReader(operator))
    presence.start({
      instance: 'i-1',
      report: () => ({
        version: '0',
        policySha: 'p',
        position: watched.feed.view.epoch,
        ageMs: 1,
        exchanges: 0,
        ready: true,
        staleAfterReadsMs: 2_000,
        staleAfterStreamsMs: 10_000,
      }),
      liveTasks: () => new Map(),
    })
    await watched.feed.ready
    const { atMs } = await committer.commit(draftOf('task:T-1'))
    expect(await committer.durability({ atLeast: 0 })).toMatchObject({ kind: 'known' })
    presence.enforced([{ rid: 'r-task:T-1', recordedAtMs: atMs, cut: 0, dropped: 0, tookMs: 1 }])
    await operatorGrants.put('T-2', {
      txn: 'T-2',
      compact: 'a.b.c',
      expiresAtMs: Date.now() + 60_000,
    })
    expect(await grants.get('T-2')).toBe('a.b.c')
    expect(await operatorGrants.list(10)).toHaveLength(1)
    await untilTrue(async () => (await reader.acknowledgements(atMs)).length > 0, 'it acknowledges')
    await untilTrue(async () => (await reader.read()).sidecars.length === 1, 'it is registered')
    expect(await reader.linkAt(1)).toBeDefined()

    const channel = revocationChannel(operator)
    const oncall = ['--no-auth-warning', '--user', 'oncall', '--pass', 'ONCALL-PASSWORD']
    await nodes[0]?.cli(...oncall, 'PUBLISH', channel, 'task:T-3 by hand')
    await untilTrue(
      async () => (await committer.list(10)).some(({ by }) => by === 'bare'),
      'what was said by hand is durable',
    )
    expect({ lines: watched.lines, warnings }).toEqual({ lines: [], warnings: [] })
    for (const node of nodes) {
      expect(await node.cli('--no-auth-warning', '-a', 'ADMIN', 'ACL', 'LOG')).toBe('')
    }
  },
  60_000,
)

async function startEngine(kind: 'server' | 'cluster') {
  if (kind === 'cluster') return await startRedisCluster()
  const server = await startRedis()
  return {
    url: server.url,
    nodes: [server],
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}
