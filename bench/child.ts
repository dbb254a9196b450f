import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

/** One server of the benchmark, in a process of its own. */
export interface ServerProcess extends AsyncDisposable {
  readonly port: number
  readonly pid: number
}

/** Starts a script of this folder that tells its port, and resolves when it listens. */
export async function startServer(
  script: string,
  args: readonly string[] = [],
): Promise<ServerProcess> {
  const path = fileURLToPath(new URL(script, import.meta.url))
  // http-proxy calls what Node has long deprecated.
  const child = fork(path, [...args], { execArgv: ['--no-deprecation'] })
  const [message]: unknown[] = await once(child, 'message')
  return {
    port: portOf(message),
    pid: child.pid ?? 0,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.kill('SIGKILL')
      await exited
    },
  }
}

function portOf(message: unknown): number {
  if (typeof message === 'object' && message !== null && 'port' in message) {
    const { port } = message
    if (typeof port === 'number') return port
  }
  throw new Error('Expected the port of a server')
}

/** What Linux counts time in, on every platform that Node runs on. */
const msPerTick = 10

/** Processor time of all threads so far, in milliseconds. NaN where there is no /proc. */
export async function cpuMs(pid: number): Promise<number> {
  const stat = await proc(pid, 'stat')
  // The name in parentheses may hold spaces; user and system time are the 14th and the 15th field.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * msPerTick
}

/** Resident memory in MiB. NaN where there is no /proc. */
export async function rssMb(pid: number): Promise<number> {
  return Number(/VmRSS:\s*(\d+)/.exec(await proc(pid, 'status'))?.[1]) / 1024
}

async function proc(pid: number, file: string): Promise<string> {
  return await readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')
}
