#!/usr/bin/env node
import { enableCompileCache } from 'node:module'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import type { Command } from 'commander'
import { version } from '../proxy/version.ts'
import { exitCodes } from './exit-codes.ts'

type Registration = (program: Command) => void

const loadLift = async (): Promise<Registration> => (await import('./lift.ts')).registerLift
const loadRevoke = async (): Promise<Registration> => (await import('./revoke.ts')).registerRevoke

/** Each command loads its own parts when it is called: `revoke` at 3 am need not wait for a policy engine. */
const registrations: ReadonlyMap<string, () => Promise<Registration>> = new Map([
  ['run', async () => (await import('./run.ts')).registerRun],
  ['dev', async () => (await import('./dev/dev.ts')).registerDev],
  ['check', async () => (await import('./check.ts')).registerCheck],
  ['task', async () => (await import('./task.ts')).registerTask],
  ['revoke', loadRevoke],
  ['pause', loadRevoke],
  ['quarantine', loadRevoke],
  ['lift', loadLift],
  ['resume', loadLift],
  ['revocations', async () => (await import('./revocations.ts')).registerRevocations],
  ['status', async () => (await import('./status.ts')).registerStatus],
  ['top', async () => (await import('./top.ts')).registerTop],
  ['tail', async () => (await import('./tail.ts')).registerTail],
  ['keygen', async () => (await import('./keygen.ts')).registerKeygen],
  ['drill', async () => (await import('./drill/drill.ts')).registerDrill],
  ['policy', async () => (await import('./policy/policy.ts')).registerPolicy],
  ['audit', async () => (await import('./audit.ts')).registerAudit],
])

async function main(argv: readonly string[]): Promise<void> {
  if (argv[2] === '--version' && argv.length === 3) {
    process.stdout.write(`${version}\n`)
    return
  }
  compileLessWasm()
  keepCompiled()
  const { Command } = await import('commander')
  const program = new Command('chaperone')
    .description('A sidecar authorization proxy for agent tool traffic.')
    .version(version)
    .exitOverride()
    .showHelpAfterError('Use --help for the options.')
  const named = registrations.get(argv[2] ?? '')
  for (const load of named ? [named] : new Set(registrations.values())) (await load())(program)
  for (const command of allCommands(program)) command.exitOverride()
  try {
    await program.parseAsync([...argv])
  } catch (error) {
    process.exitCode = exitCodeOf(error)
  }
}

/**
 * The policy engine runs a little of everything once, at the start, and V8 would optimize that at once: 30 MiB of memory
 * and more work than the start itself. With a higher bar, only what stays hot under load is optimized. What never runs is
 * not looked at: the engine's code is pinned by its digest.
 */
function compileLessWasm(): void {
  setFlagsFromString('--wasm-tiering-budget=1000000000')
  setFlagsFromString('--wasm-lazy-validation')
}

/**
 * Compiling its modules is a third of a start. What an earlier process left at its end is used again: beside the program,
 * where only those can write who could change the program itself, never in a folder that others share. Where it cannot be
 * written nothing is kept, and that is no error.
 */
function keepCompiled(): void {
  const path = fileURLToPath(import.meta.url)
  if (path.endsWith('.js'))
    enableCompileCache(fileURLToPath(new URL('../.compiled', import.meta.url)))
}

/** `exitOverride()` is not handed down to commands that were made before. */
function allCommands(command: Command): readonly Command[] {
  return command.commands.flatMap((child) => [child, ...allCommands(child)])
}

function exitCodeOf(error: unknown): number {
  if (isCommanderError(error)) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  process.stderr.write(`chaperone: ${error instanceof Error ? error.message : 'unknown error'}\n`)
  const isOurs = error instanceof Error && 'exitCode' in error
  return isOurs && typeof error.exitCode === 'number' ? error.exitCode : exitCodes.fault
}

/** By its code: the class is not loaded before it is needed. */
function isCommanderError(error: unknown): error is Error & { readonly exitCode: number } {
  if (!(error instanceof Error) || !('code' in error) || !('exitCode' in error)) return false
  return typeof error.code === 'string' && error.code.startsWith('commander.')
}

await main(process.argv)
