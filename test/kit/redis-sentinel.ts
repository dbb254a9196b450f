import { redisArgs, startRedis, type RedisProcess } from './redis.ts'
import { redisTls } from './tls.ts'
import { untilTrue } from './until-true.ts'

/** A master, its replicas and three Sentinels that replace it two seconds after it fell silent. */
export interface SentinelSet extends AsyncDisposable {
  /** `redis-sentinel://...`. */
  readonly url: string
  /** In the order of the start: the first was the master then. */
  readonly servers: readonly RedisProcess[]
  /** The master, as the first Sentinel has it. */
  master(): Promise<RedisProcess>
  /** Asks for a failover by choice: `OK`, or why not now. */
  failover(): Promise<string>
  /** Resolves when the Sentinels have another master than this. */
  untilMasterIsNot(port: number): Promise<RedisProcess>
}

export interface SentinelSetOptions {
  readonly replicas?: number
  /** `min-replicas-to-write` of every server. Default 1, as docs/revocation.md has it. */
  readonly minReplicas?: number
  /** Everything over TLS, also between them. Default false. */
  readonly tls?: boolean
}

const sentinelDownAfterMs = 1_500
const name = 'chaperone-master'

export async function startSentinelSet(options: SentinelSetOptions = {}): Promise<SentinelSet> {
  const { replicas = 2, minReplicas = 1, tls = false } = options
  const access = tls ? redisTls.options : {}
  const over = tls
    ? [...redisTls.args, ...redisArgs({ 'tls-replication': 'yes', 'tls-auth-clients': 'no' })]
    : []
  await using stack = new AsyncDisposableStack()
  const settings = redisArgs({
    'min-replicas-to-write': String(minReplicas),
    'min-replicas-max-lag': '2',
    'repl-diskless-sync-delay': '0',
    'repl-ping-replica-period': '1',
  })
  const common = [...settings, ...over]
  const first = stack.use(await startRedis(common, access))
  const following = ['--replicaof', `127.0.0.1 ${first.port}`]
  const others = await Promise.all(
    Array.from({ length: replicas }, () => startRedis([...common, ...following], access)),
  )
  const servers = [first, ...others.map((server) => stack.use(server))]
  await untilTrue(async () => {
    const info = await first.cli('INFO', 'replication')
    return (info.match(/state=online/g) ?? []).length === replicas
  }, 'every replica follows the master')
  const configuration = [
    `sentinel monitor ${name} 127.0.0.1 ${first.port} 2`,
    `sentinel down-after-milliseconds ${name} ${sentinelDownAfterMs}`,
    `sentinel failover-timeout ${name} 6000`,
    `sentinel parallel-syncs ${name} 2`,
  ].join('\n')
  const sentinels = await Promise.all(
    Array.from({ length: 3 }, () =>
      startRedis(['--sentinel', ...over], { ...access, configuration }),
    ),
  )
  for (const sentinel of sentinels) stack.use(sentinel)
  const isKnown = async (sentinel: RedisProcess): Promise<boolean> => {
    const state = await sentinel.cli('SENTINEL', 'MASTER', name)
    const has = (field: string, value: number): boolean => state.includes(`${field}\n${value}\n`)
    return has('num-slaves', replicas) && has('num-other-sentinels', 2)
  }
  await untilTrue(
    async () => (await Promise.all(sentinels.map(isKnown))).every(Boolean),
    'every Sentinel knows the others and the replicas',
  )
  const [asked] = sentinels
  if (!asked) throw new Error('No Sentinel')
  const masterPort = async (): Promise<number> => {
    const reply = await asked.cli('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', name)
    return Number(reply.split('\n')[1])
  }
  const master = async (): Promise<RedisProcess> => {
    const port = await masterPort()
    const found = servers.find((server) => server.port === port)
    if (!found) throw new Error(`No server at port ${port}`)
    return found
  }
  const owned = stack.move()
  return {
    url: `${tls ? 'rediss' : 'redis'}-sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${name}`,
    servers,
    master,
    failover: () => asked.cli('SENTINEL', 'FAILOVER', name),
    async untilMasterIsNot(port) {
      await untilTrue(async () => (await masterPort()) !== port, 'the Sentinels have a new master')
      return await master()
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}
