#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
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
  ['tail', async () => (await import('./tail.ts')).registerTail],
  ['keygen', async () => (await import('./keygen.ts')).registerKeygen],
  ['drill', async () => (await import('./drill/drill.ts')).registerDrill],
  ['policy', async () => (await import('./policy/policy.ts')).registerPolicy],
  ['audit', async () => (await import('./audit.ts')).registerAudit],
])

async function main(argv: readonly string[]): Promise<void> {
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

/** `exitOverride()` is not handed down to commands that were made before. */
function allCommands(command: Command): readonly Command[] {
  return command.commands.flatMap((child) => [child, ...allCommands(child)])
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  process.stderr.write(`chaperone: ${error instanceof Error ? error.message : 'unknown error'}\n`)
  const isOurs = error instanceof Error && 'exitCode' in error
  return isOurs && typeof error.exitCode === 'number' ? error.exitCode : exitCodes.fault
}

await main(process.argv)
