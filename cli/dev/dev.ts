import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { InvalidArgumentError, type Command } from 'commander'
import { formatProblem, loadConfig } from '../../config/load.ts'
import { createLog } from '../../proxy/log.ts'
import { startSidecar, type RunningSidecar } from '../../proxy/start-sidecar.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { createEmbeddedGrantStore } from '../../revocation/embedded-grant-store.ts'
import { createEmbeddedRevocation } from '../../revocation/embedded.ts'
import type { RevocationCommitter } from '../../revocation/feed.ts'
import { untilSignal } from '../until-signal.ts'
import { startOperatorSocket } from './operator-socket.ts'
import { playStory } from './story.ts'
import { startDevUpstream } from './upstream.ts'
import { createDevWorld, devAgent, type DevWorld } from './world.ts'

const grantTtlSeconds = 30 * 60

/** `chaperone dev`: the whole system in one process on embedded defaults; `--demo` plays its story and exits. */
export function registerDev(program: Command): void {
  program
    .command('dev')
    .description('run a complete system on this machine: no Redis, no SPIRE, no cluster')
    .option('--demo', 'play the story unattended, exit 0 when every step holds', false)
    .option('--port <port>', 'agent listener, 0 for a free one', '15080')
    .option('--admin-port <port>', 'admin listener, 0 for a free one', '15081')
    .action(async (options: { demo: boolean; port: string; adminPort: string }) => {
      process.exitCode = await dev({
        demo: options.demo,
        agentPort: options.demo ? 0 : port(options.port),
        adminPort: options.demo ? 0 : port(options.adminPort),
      })
    })
}

interface DevOptions {
  readonly demo: boolean
  readonly agentPort: number
  readonly adminPort: number
}

async function dev(options: DevOptions): Promise<number> {
  await using upstream = await startDevUpstream()
  const world = await createDevWorld({ upstreamUrl: upstream.url, ...options })
  try {
    return await devIn(world, options)
  } finally {
    await rm(world.directory, { recursive: true, force: true })
  }
}

async function devIn(world: DevWorld, { demo }: DevOptions): Promise<number> {
  const loaded = loadConfig(world.configPath)
  if (!loaded.ok) throw new TypeError(loaded.problems.map(formatProblem).join('\n'))
  const log = createLog({ level: loaded.config.log.level })
  const { feed, committer } = createEmbeddedRevocation({ clock: systemClock })
  const grants = createEmbeddedGrantStore({ clock: systemClock })
  const approve = async (txn: string): Promise<void> => {
    const compact = await world.grant({ txn, ttlSeconds: grantTtlSeconds })
    await grants.put(txn, { txn, compact, expiresAtMs: Date.now() + grantTtlSeconds * 1000 })
  }
  await using sidecar = await startSidecar({ ...loaded, feed, grants, clock: systemClock, log })
  const socketPath = join(world.directory, 'operator.sock')
  await using _operator = await startOperatorSocket({ path: socketPath, committer, approve })
  await sidecar.ready
  if (demo) {
    say('Chaperone demo: one task from approval to proof of its end')
    const holds = await playStory({
      agentUrl: sidecar.agentUrl,
      world,
      auditPath: join(world.directory, 'audit.ndjson'),
      approve,
      revoke: (txn, reason) => revokeTask(committer, { txn, reason }),
      say,
    })
    say(holds ? 'Every step held.' : 'A step did not hold.')
    return holds ? 0 : 1
  }
  await approve('T-1')
  say(invitation({ sidecar, world, socketPath }))
  await untilSignal()
  return 0
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

async function revokeTask(
  committer: RevocationCommitter,
  { txn, reason }: { readonly txn: string; readonly reason: string },
): Promise<{ rid: string; epoch: string }> {
  const rid = randomUUID()
  const { epoch } = await committer.commit({
    rid,
    op: 'revoke',
    subject: `task:${txn}`,
    reason,
    by: 'operator@demo',
    expiresAtMs: 0,
  })
  return { rid, epoch }
}

/** Lines to paste: the comment over each is what a smoke run looks for. */
function invitation(options: {
  readonly sidecar: RunningSidecar
  readonly world: DevWorld
  readonly socketPath: string
}): string {
  const { sidecar, world, socketPath } = options
  const call = `curl -sS -H "Authorization: Bearer $SVID" -H "Task-Id: T-1"`
  const operator = `curl -sS --unix-socket ${socketPath} http://operator`
  return `Chaperone is up: agent ${devAgent}, task T-1 approved for 30 minutes (GET /invoices, GET /events, WebSocket /live)
  agents call ${sidecar.agentUrl}   probes and metrics ${sidecar.adminUrl}   audit ${join(world.directory, 'audit.ndjson')}

Paste these into another terminal. First the agent's identity, as its SPIFFE agent would hand it over:
export SVID=$(cat ${world.svidPath})

# an allowed call: the upstream answers, and says whose credential it saw
${call} ${sidecar.agentUrl}/api/invoices

# a call outside the grant: refused with a reason that a model can read
${call} ${sidecar.agentUrl}/api/admin/users

# a live stream: leave it running while you revoke
${call} -N ${sidecar.agentUrl}/api/events

# revoke the task: the stream is reset at once, and the next call is refused
${operator}/revocations -d '{"subject":"task:T-1","reason":"wrong customer"}'

# approve another task: use it as Task-Id
${operator}/tasks -d '{"txn":"T-2"}'

Press Ctrl-C to stop.`
}

function port(text: string): number {
  const value = Number(text)
  if (!/^\d{1,5}$/.test(text) || value > 65_535)
    throw new InvalidArgumentError('Expected a port from 0 to 65535')
  return value
}
