/**
 * Measures what the sidecar costs, and how fast a revocation bites. `--short` takes a few seconds and says only that the
 * benchmark runs; `--minute` adds a minute of load on one sidecar, for its memory. Time never fails it; an answer that is
 * not 200 and a stream that is not cut do. Nothing is pinned to a core: the client, the proxy and the upstream share the
 * machine, so read the ratios, not the rates.
 */
import { spawnSync } from 'node:child_process'
import { rssMb, startServer } from './child.ts'
import { peerNames } from '../test/kit/peer-proxy.ts'
import { measureMemory } from './memory.ts'
import { report, type Memory } from './report.ts'
import { measureRevocation } from './revocation.ts'
import { startBenchSidecar } from './sidecar.ts'
import { measureStreams } from './streams.ts'
import { measure, type Candidate, type Slices } from './throughput.ts'

const plans = {
  short: {
    rounds: 3,
    sliceMs: 300,
    starts: 2,
    streams: 50,
    streamRounds: 1,
    streamMs: 200,
    idleConnections: 100,
    refusalTrials: 5,
    busyMs: 1_000,
    cuts: [
      { streams: 10, trials: 3 },
      { streams: 100, trials: 2 },
    ],
  },
  full: {
    rounds: 8,
    sliceMs: 1_000,
    starts: 6,
    streams: 200,
    streamRounds: 3,
    streamMs: 4_000,
    idleConnections: 2_000,
    refusalTrials: 100,
    busyMs: 10_000,
    cuts: [
      { streams: 10, trials: 20 },
      { streams: 1_000, trials: 5 },
    ],
  },
} as const

const plan = process.argv.includes('--short') ? plans.short : plans.full

await using upstream = await startServer('upstream.ts')
const load = await underLoad()
const revocation = hasRedis()
  ? await measureRevocation({ ...plan, upstreamPort: upstream.port })
  : undefined
const fresh = await measureMemory({
  ...plan,
  upstreamPort: upstream.port,
  loadSeconds: process.argv.includes('--minute') ? 60 : 0,
})
process.stdout.write(`${report({ ...load, fresh, revocation })}\n`)
const failures = countFailures(load.many) + countFailures(load.one)
if (failures > 0) {
  process.stderr.write(`${failures} requests were not answered with 200\n`)
  process.exitCode = 1
}

async function underLoad() {
  const readyMs = await startTimes()
  const args = [String(upstream.port)]
  await using bare = await startServer('bare.ts', args)
  await using peers = new AsyncDisposableStack()
  const passing: Candidate[] = []
  for (const name of peerNames) {
    const { port, pid } = peers.use(await startServer('peer.ts', [...args, name]))
    passing.push({ name, port, pid })
  }
  await using full = await startBenchSidecar({ upstreamPort: upstream.port })
  const candidates: readonly Candidate[] = [
    { name: 'direct', port: upstream.port, pid: upstream.pid },
    { name: 'bare', port: bare.port, pid: bare.pid },
    ...passing,
    { name: 'full', port: full.port, pid: full.process.pid },
  ]
  const request = full.request('/json', 'bench')
  const idle = await memoryOf(candidates)
  const one = await measure(candidates, { ...plan, connections: 1, request })
  const many = await measure(candidates, { ...plan, connections: 64, request })
  const loaded = await memoryOf(candidates)
  const timed = full.request('/timed', 'bench')
  const streams = await measureStreams(candidates, { ...plan, request: timed })
  const memory = new Map<string, Memory>(
    candidates.map(({ name }, index) => [
      name,
      { idleMb: idle[index] ?? Number.NaN, loadedMb: loaded[index] ?? Number.NaN },
    ]),
  )
  return { one, many, streams, memory, readyMs }
}

async function startTimes(): Promise<readonly number[]> {
  const times: number[] = []
  for (let start = 0; start < plan.starts; start++) {
    await using sidecar = await startBenchSidecar({ upstreamPort: upstream.port })
    times.push(sidecar.readyMs)
    // It leaves what it compiled, as it would for the next start anywhere else.
    sidecar.process.kill('SIGTERM')
    await sidecar.process.exited
  }
  return times
}

function memoryOf(candidates: readonly Candidate[]): Promise<readonly number[]> {
  return Promise.all(candidates.map(({ pid }) => rssMb(pid)))
}

function hasRedis(): boolean {
  const program = process.env['REDIS_SERVER'] ?? 'redis-server'
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0
}

function countFailures(slices: Slices): number {
  return [...slices.values()].flat().reduce((sum, { failures: count }) => sum + count, 0)
}
