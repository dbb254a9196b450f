import { freePort, redisArgs, startRedis, type RedisProcess } from './redis.ts'
import { untilTrue } from './until-true.ts'

/** Three masters with a replica each. */
export interface RedisCluster extends AsyncDisposable {
  /** `redis-cluster://...` of three nodes. */
  readonly url: string
  readonly nodes: readonly RedisProcess[]
  /** The master of the slot of this key, as any node but the ones left out has it. */
  ownerOf(
    key: string,
    options?: { readonly except?: readonly RedisProcess[] },
  ): Promise<RedisProcess>
  /** A failover by choice: resolves when the replica is the master. */
  promote(replica: RedisProcess): Promise<void>
  /** Moves the slot of this key, as resharding does; `during()` runs while it belongs to both. */
  moveSlot(
    key: string,
    move: {
      readonly from: RedisProcess
      readonly to: RedisProcess
      readonly during: () => Promise<void>
    },
  ): Promise<void>
  /** Nodes that follow this one. */
  replicasOf(node: RedisProcess): Promise<readonly RedisProcess[]>
}

const clusterNodeTimeoutMs = 2_000
const failoverTimeoutMs = 6_000
const slots = 16_384
const shards = 3

export async function startRedisCluster(): Promise<RedisCluster> {
  await using stack = new AsyncDisposableStack()
  // One that does not start must not leave the others behind.
  const started = await Promise.allSettled(Array.from({ length: shards * 2 }, startNode))
  const nodes = started.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []))
  for (const { server } of nodes) stack.use(server)
  if (nodes.length < started.length) throw new Error('A node did not start')
  const [first] = nodes
  if (!first) throw new Error('No node')
  const masters = nodes.slice(0, shards)
  const perShard = Math.ceil(slots / shards)
  for (const [index, { server }] of masters.entries()) {
    const from = index * perShard
    const to = Math.min(from + perShard, slots) - 1
    await server.cli('CLUSTER', 'ADDSLOTSRANGE', String(from), String(to))
    await server.cli('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1))
  }
  for (const { server, busPort } of nodes.slice(1)) {
    await first.server.cli('CLUSTER', 'MEET', '127.0.0.1', String(server.port), String(busPort))
  }
  await untilTrue(
    async () =>
      (await Promise.all(nodes.map((node) => says(node, `known_nodes:${nodes.length}`)))).every(
        Boolean,
      ),
    'every node knows every other',
  )
  for (const [index, { server }] of masters.entries()) {
    const id = await server.cli('CLUSTER', 'MYID')
    await nodes[shards + index]?.server.cli('CLUSTER', 'REPLICATE', id)
  }
  await untilTrue(async () => {
    const ready = nodes.map((node) => says(node, 'cluster_state:ok'))
    const linked = masters.map(async ({ server }) =>
      (await server.cli('INFO', 'replication')).includes('state=online'),
    )
    return (await Promise.all([...ready, ...linked])).every(Boolean)
  }, 'the cluster is up and its replicas follow')
  const servers = nodes.map(({ server }) => server)
  const owned = stack.move()
  return {
    url: `redis-cluster://${masters.map(({ server }) => `127.0.0.1:${server.port}`).join(',')}`,
    nodes: servers,
    async ownerOf(key, { except = [] } = {}) {
      const asked = servers.find((server) => !except.includes(server))
      const answer = (await asked?.cli('GET', key)) ?? ''
      if (answer.startsWith('CLUSTERDOWN')) throw new Error(answer)
      const port = Number(/^MOVED \d+ .*:(\d+)$/.exec(answer)?.[1] ?? asked?.port)
      const found = servers.find((server) => server.port === port)
      if (!found) throw new Error(`No node at port ${port}`)
      return found
    },
    async promote(replica) {
      // Five seconds are what a server allows it for: on a busy machine that may be too short.
      let askedAtMs = -Infinity
      await untilTrue(async () => {
        if (performance.now() - askedAtMs > failoverTimeoutMs) {
          askedAtMs = performance.now()
          await replica.cli('CLUSTER', 'FAILOVER')
        }
        return (await replica.cli('INFO', 'replication')).includes('role:master')
      }, 'the replica is a master')
    },
    async moveSlot(key, { from, to, during }) {
      const [slot, fromId, toId] = await Promise.all([
        from.cli('CLUSTER', 'KEYSLOT', key),
        from.cli('CLUSTER', 'MYID'),
        to.cli('CLUSTER', 'MYID'),
      ])
      await to.cli('CLUSTER', 'SETSLOT', slot, 'IMPORTING', fromId)
      await from.cli('CLUSTER', 'SETSLOT', slot, 'MIGRATING', toId)
      await during()
      const keys = (await from.cli('CLUSTER', 'GETKEYSINSLOT', slot, '1000')).split('\n')
      await from.cli('MIGRATE', '127.0.0.1', String(to.port), '', '0', '5000', 'KEYS', ...keys)
      await to.cli('CLUSTER', 'SETSLOT', slot, 'NODE', toId)
      await from.cli('CLUSTER', 'SETSLOT', slot, 'NODE', toId)
    },
    async replicasOf(node) {
      const info = await node.cli('INFO', 'replication')
      const ports = [...info.matchAll(/port=(\d+),state=online/g)].map(([, port]) => Number(port))
      return servers.filter(({ port }) => ports.includes(port))
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

async function says({ server }: ClusterNode, text: string): Promise<boolean> {
  return (await server.cli('CLUSTER', 'INFO')).includes(text)
}

interface ClusterNode {
  readonly server: RedisProcess
  readonly busPort: number
}

async function startNode(): Promise<ClusterNode> {
  let busPort = 0
  const server = await startRedis(async () => {
    busPort = await freePort()
    return redisArgs({
      'cluster-enabled': 'yes',
      'cluster-port': String(busPort),
      'cluster-node-timeout': String(clusterNodeTimeoutMs),
      'repl-diskless-sync-delay': '0',
      'repl-ping-replica-period': '1',
    })
  })
  return { server, busPort }
}
