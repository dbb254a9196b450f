import type { Command } from 'commander'
import { formatProblem, loadConfig } from '../config/load.ts'
import { createLog, type Log } from '../proxy/log.ts'
import { watchConfig } from '../proxy/reload.ts'
import { startSidecar } from '../proxy/start-sidecar.ts'
import { systemClock } from '../proxy/system-clock.ts'
import { openControlPlane } from './control-plane.ts'
import { exitCodes } from './exit-codes.ts'
import { untilSignal } from './until-signal.ts'

/** `chaperone run`: the sidecar. Ends with 0 after SIGTERM or SIGINT, with 3 when the configuration is bad. */
export function registerRun(program: Command): void {
  program
    .command('run')
    .description('run the sidecar')
    .option('-c, --config <path>', 'configuration file', 'chaperone.yaml')
    .action(async ({ config }: { config: string }) => {
      process.exitCode = await run(config)
    })
}

async function run(path: string): Promise<number> {
  const loaded = loadConfig(path)
  if (!loaded.ok) {
    for (const problem of loaded.problems) process.stderr.write(`${formatProblem(problem)}\n`)
    return exitCodes.badConfig
  }
  const log = createLog({ level: loaded.config.log.level })
  // Something that nobody foresaw leaves no state to trust: out, and the pod starts it anew.
  process.on('uncaughtException', (error) => {
    log.error({ err: error }, 'uncaught error: ending')
    process.exit(exitCodes.fault)
  })
  const stop = untilSignal()
  try {
    await serve(path, { loaded, log, stop })
    return exitCodes.ok
  } catch (error) {
    log.error({ err: error }, 'cannot start')
    process.stderr.write(`chaperone: ${error instanceof Error ? error.message : 'unknown error'}\n`)
    return exitCodes.badConfig
  }
}

interface ServeOptions {
  readonly loaded: Extract<ReturnType<typeof loadConfig>, { ok: true }>
  readonly log: Log
  readonly stop: Promise<NodeJS.Signals>
}

async function serve(path: string, { loaded, log, stop }: ServeOptions): Promise<void> {
  const clock = systemClock
  await using plane = await openControlPlane(loaded.config, { clock, log })
  const { feed, grants, presence, checkpoints } = plane
  await using sidecar = await startSidecar({
    ...loaded,
    feed,
    grants,
    ...(presence && { presence }),
    ...(checkpoints && { checkpoints }),
    clock,
    log,
  })
  const { agentUrl, adminUrl } = sidecar
  log.info({ agentUrl, adminUrl }, 'listening')
  await using _reload = watchConfig({
    path,
    sha256: loaded.sha256,
    watched: () => sidecar.watched,
    log,
    apply: (next) => sidecar.reload(next),
    onResult: (result) => sidecar.reloaded(result),
  })
  sidecar.ready.then(
    () => log.info({}, 'ready'),
    () => undefined,
  )
  const signal = await stop
  log.info({ signal }, 'stopping')
}
