import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { peerNames, versionOfPeer } from '../kit/peer-proxy.ts'
import { startRawUpstream, startRelay, watch, type Peer } from '../kit/relay.ts'
import type { Subject } from './probe.ts'

export interface Contestant extends Subject, AsyncDisposable {
  /** Whether the program ended under the probe. */
  hasEnded(): boolean
}

/** A proxy to compare with. */
export interface Contender {
  readonly name: string
  readonly version: string
  start(options: { readonly deadlineMs: number }): Promise<Contestant>
}

/** Ours, and those of the others that this machine has. */
export function contenders(): readonly Contender[] {
  return [
    {
      name: 'Chaperone',
      version: '',
      start: async ({ deadlineMs }) => ({
        ...(await startRelay({ gated: true })),
        hasEnded: () => false,
        deadlineMs,
      }),
    },
    ...[...peerNames.map(peerProgram), nginx, haproxy]
      .filter(({ path }) => existsSync(path))
      .map((program) => ({
        name: program.name,
        version: program.version(),
        start: (options: { readonly deadlineMs: number }) =>
          behindUpstream((url) => startProgram(program, url), options),
      })),
  ]
}

interface Running extends AsyncDisposable {
  readonly port: number
  /** Whether the program is gone. */
  hasEnded(): boolean
}

async function behindUpstream(
  start: (upstreamUrl: string) => Promise<Running>,
  { deadlineMs }: { readonly deadlineMs: number },
): Promise<Contestant> {
  const upstream = await startRawUpstream()
  const proxy = await start(upstream.url)
  const peers: Peer[] = []
  return {
    agent(text) {
      const peer = watch(connect(proxy.port, '127.0.0.1'))
      peers.push(peer)
      peer.socket.write(text, 'latin1')
      return peer
    },
    upstreamPeer: upstream.next,
    upstreamConnections: upstream.count,
    hasEnded: () => proxy.hasEnded(),
    deadlineMs,
    async [Symbol.asyncDispose]() {
      for (const { socket } of peers) socket.destroy()
      await proxy[Symbol.asyncDispose]()
      await upstream.close()
    },
  }
}

interface Program {
  readonly name: string
  readonly path: string
  version(): string
  config(options: ProgramOptions): string
  args(configPath: string, options: ProgramOptions): readonly string[]
}

interface ProgramOptions {
  readonly port: number
  readonly upstream: string
  readonly folder: string
}

function peerProgram(name: string): Program {
  return {
    name,
    path: process.execPath,
    version: () => versionOfPeer(name),
    config: () => '',
    args: (_, { port, upstream }) => [
      fileURLToPath(new URL('peer-main.ts', import.meta.url)),
      name,
      String(port),
      upstream,
    ],
  }
}

const nginx: Program = {
  name: 'nginx',
  path: '/usr/sbin/nginx',
  // The version goes to stderr.
  version: () =>
    versionIn(execFileSync('/bin/sh', ['-c', '/usr/sbin/nginx -v 2>&1'], { encoding: 'utf8' })),
  args: (configPath) => ['-c', configPath],
  config: ({ port, upstream, folder }) => `
daemon off; master_process off; pid ${folder}/pid; error_log /dev/null;
events {}
http {
  access_log off;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
  upstream u { server ${upstream}; keepalive 16; }
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://u; proxy_http_version 1.1;
      proxy_buffering off; proxy_request_buffering off;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }
  }
}`,
}

const haproxy: Program = {
  name: 'HAProxy',
  path: '/usr/sbin/haproxy',
  version: () => versionIn(execFileSync('/usr/sbin/haproxy', ['-v'], { encoding: 'utf8' })),
  args: (configPath) => ['-db', '-f', configPath],
  config: ({ port, upstream }) => `
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend agents
  bind 127.0.0.1:${port}
  default_backend upstream
backend upstream
  server one ${upstream}
`,
}

/** Again on another port when the program ends: the port may have been taken meanwhile. */
async function startProgram(program: Program, upstreamUrl: string): Promise<Running> {
  for (let attempt = 0; attempt < 5; attempt++) {
    const running = await tryProgram(program, upstreamUrl)
    if (!running.hasEnded()) return running
    await running[Symbol.asyncDispose]()
  }
  throw new Error(`${program.name} does not start`)
}

async function tryProgram(program: Program, upstreamUrl: string): Promise<Running> {
  const folder = await mkdtemp(join(tmpdir(), 'conformance-'))
  const port = await freePort()
  const configPath = join(folder, 'config')
  const options = { port, upstream: new URL(upstreamUrl).host, folder }
  await writeFile(configPath, program.config(options))
  const child = spawn(program.path, program.args(configPath, options), { stdio: 'ignore' })
  await accepts(port, child)
  return {
    port,
    hasEnded: () => child.exitCode !== null,
    async [Symbol.asyncDispose]() {
      const exited = child.exitCode === null ? once(child, 'exit') : undefined
      child.kill('SIGKILL')
      await exited
      await rm(folder, { recursive: true })
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = portOf(server.address())
  server.close()
  await once(server, 'close')
  return port
}

async function accepts(port: number, child: ChildProcess): Promise<void> {
  const deadline = performance.now() + 10_000
  while (child.exitCode === null) {
    const socket = connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      return
    } catch (error) {
      if (performance.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 20))
    } finally {
      socket.destroy()
    }
  }
}

function portOf(address: ReturnType<ReturnType<typeof createServer>['address']>): number {
  if (address === null || typeof address === 'string') throw new Error('Expected a TCP address')
  return address.port
}

function versionIn(text: string): string {
  return readableVersion.exec(text)?.[0] ?? 'unknown'
}

const readableVersion = /\d+\.\d+\.\d+/

/** The version of Node that runs the comparison. */
export const nodeVersion = process.versions.node

/** What stands in a file between the two marks, replaced. */
export function replaceBetween(
  path: string,
  { begin, end, text }: { readonly begin: string; readonly end: string; readonly text: string },
): string {
  const page = readFileSync(path, 'utf8')
  const from = page.indexOf(begin)
  const to = page.indexOf(end)
  if (from === -1 || to < from) throw new Error(`Expected the marks ${begin} and ${end}`)
  return `${page.slice(0, from + begin.length)}\n\n${text}\n\n${page.slice(to)}`
}
