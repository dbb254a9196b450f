import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** A Redis server of its own, without persistence: what it held is gone when it ends. */
export interface RedisProcess extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** Runs `redis-cli` with these arguments and resolves with what it printed. */
  cli(...args: readonly string[]): Promise<string>
  /** SIGKILL. Resolves when the process is gone. */
  kill(): Promise<void>
  /** SIGSTOP: connections stay open and nothing answers. */
  freeze(): void
  /** SIGCONT. */
  thaw(): void
  /** Ends it if need be and starts an empty one on the same port. */
  restart(): Promise<void>
}

export interface RedisProcessOptions {
  /** Of a configuration file that the server may write to, as a Sentinel does. */
  readonly configuration?: string
  /** What `redis-cli` needs to get in. */
  readonly cliArgs?: readonly string[]
  /** Over TLS alone: the port of `url` takes no plain connection. */
  readonly tls?: boolean
}

/**
 * Starts the program of `REDIS_SERVER` (default `redis-server`) on a free port of 127.0.0.1, and on another one when
 * somebody was faster. Arguments that need a free port too come as a function.
 */
export async function startRedis(
  args: readonly string[] | (() => Promise<readonly string[]>) = [],
  options: RedisProcessOptions = {},
): Promise<RedisProcess> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(typeof args === 'function' ? await args() : args, options)
    } catch (error) {
      if (attempt === maxAttempts) throw error
    }
  }
}

const maxAttempts = 3

async function startOnce(
  args: readonly string[],
  options: RedisProcessOptions,
): Promise<RedisProcess> {
  const { configuration, cliArgs = [], tls = false } = options
  const directory = await mkdtemp(join(tmpdir(), 'chaperone-redis-'))
  const port = await freePort()
  const cli = async (...command: readonly string[]): Promise<string> => {
    const { stdout } = await run('redis-cli', ['-p', String(port), ...cliArgs, ...command], {
      timeout: 20_000,
    })
    return stdout.trim()
  }
  const start = async (): Promise<ChildProcess> => {
    const program = process.env['REDIS_SERVER'] ?? 'redis-server'
    const file = join(directory, 'redis.conf')
    if (configuration !== undefined) await writeFile(file, configuration)
    const ports = tls ? ['--port', '0', '--tls-port', String(port)] : ['--port', String(port)]
    const settings = [...ports, '--bind', '127.0.0.1', '--dir', directory]
    const server = spawn(
      program,
      [
        ...(configuration === undefined ? [] : [file]),
        ...settings,
        '--save',
        '',
        '--appendonly',
        'no',
        ...args,
      ],
      { stdio: 'ignore' },
    )
    await answering(cli, server)
    return server
  }
  let server = await start()
  const kill = async (): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return
    const exited = once(server, 'exit')
    server.kill('SIGKILL')
    await exited
  }
  return {
    url: `${tls ? 'rediss' : 'redis'}://127.0.0.1:${port}`,
    port,
    cli,
    kill,
    freeze: () => void server.kill('SIGSTOP'),
    thaw: () => void server.kill('SIGCONT'),
    restart: async () => {
      await kill()
      server = await start()
    },
    async [Symbol.asyncDispose]() {
      await kill()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

/** Settings as the arguments that `startRedis()` takes. */
export function redisArgs(settings: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(settings).flatMap(([key, value]) => [`--${key}`, value])
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('No free port')
  return address.port
}

async function answering(cli: RedisProcess['cli'], server: ChildProcess): Promise<void> {
  const deadline = performance.now() + answerWithinMs
  while (performance.now() < deadline) {
    const answer = await cli('ping').catch(() => '')
    // It ends when the port is taken: then another one answers.
    if (server.exitCode !== null) throw new Error(`redis-server ended with ${server.exitCode}`)
    // A server with a password says NOAUTH: it answers.
    if (answer !== '' && !answer.includes('refused')) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  server.kill('SIGKILL')
  throw new Error(`redis-server did not answer within ${answerWithinMs} ms`)
}

const answerWithinMs = 30_000
