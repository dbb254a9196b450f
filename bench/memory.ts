import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { rssMb } from './child.ts'
import { load } from './load.ts'
import { startBenchSidecar } from './sidecar.ts'

/** Resident memory of a sidecar that has done nothing before, in MiB. */
export interface SidecarMemory {
  /** Once it is ready. */
  readonly idleMb: number
  /** With so many connections that are open, have each asked once, and are silent. */
  readonly connections: number
  readonly connectedMb: number
  /** After so many seconds of load without a pause. Undefined when that was not asked for. */
  readonly loaded: { readonly seconds: number; readonly mb: number } | undefined
}

interface MemoryPlan {
  readonly upstreamPort: number
  readonly idleConnections: number
  /** 0: none. */
  readonly loadSeconds: number
}

/** Starts a sidecar for each figure. */
export async function measureMemory(plan: MemoryPlan): Promise<SidecarMemory> {
  const { upstreamPort, idleConnections: connections, loadSeconds: seconds } = plan
  const { idleMb, connectedMb } = await withConnections(upstreamPort, connections)
  const loaded = seconds > 0 ? { seconds, mb: await afterLoad(upstreamPort, seconds) } : undefined
  return { idleMb, connections, connectedMb, loaded }
}

/** For what a garbage collector or an allocator gives back by itself. */
const settleMs = 1_000

async function withConnections(
  upstreamPort: number,
  connections: number,
): Promise<{ readonly idleMb: number; readonly connectedMb: number }> {
  await using sidecar = await startBenchSidecar({ upstreamPort })
  await setTimeout(settleMs)
  const idleMb = await rssMb(sidecar.process.pid)
  const request = sidecar.request('/json', 'bench')
  const sockets: Socket[] = []
  for (let n = 0; n < connections; n++) sockets.push(await askOnce(sidecar.port, request))
  await setTimeout(settleMs)
  const connectedMb = await rssMb(sidecar.process.pid)
  for (const socket of sockets) socket.destroy()
  return { idleMb, connectedMb }
}

/** Leaves the connection open. */
async function askOnce(port: number, request: Buffer): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.write(request)
  await once(socket, 'data')
  socket.resume()
  return socket
}

async function afterLoad(upstreamPort: number, seconds: number): Promise<number> {
  await using sidecar = await startBenchSidecar({ upstreamPort })
  const request = sidecar.request('/json', 'bench')
  const { port } = sidecar
  const { failures } = await load({ port, request, connections: 64, durationMs: seconds * 1000 })
  if (failures > 0) throw new Error(`${failures} requests were not answered with 200`)
  return await rssMb(sidecar.process.pid)
}
