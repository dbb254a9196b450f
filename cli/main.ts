#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { version } from '../proxy/version.ts'
import { exitCodes } from './exit-codes.ts'

/** Each command loads its own parts when it is called: `revoke` at 3 am need not wait for a policy engine. */
const registrations: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  run: async () => (await import('./run.ts')).registerRun,
  dev: async () => (await import('./dev/dev.ts')).registerDev,
  check: async () => (await import('./check.ts')).registerCheck,
  task: async () => (await import('./task.ts')).registerTask,
  revoke: async () => (await import('./revoke.ts')).registerRevoke,
  revocations: async () => (await import('./revocations.ts')).registerRevocations,
  keygen: async () => (await import('./keygen.ts')).registerKeygen,
  audit: async () => (await import('./audit.ts')).registerAudit,
}

async function main(argv: readonly string[]): Promise<void> {
  const program = new Command('chaperone')
    .description('A sidecar authorization proxy for agent tool traffic.')
    .version(version)
    .exitOverride()
    .showHelpAfterError('Use --help for the options.')
  const named = registrations[argv[2] ?? '']
  for (const load of named ? [named] : Object.values(registrations)) (await load())(program)
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
  return exitCodes.fault
}

await main(process.argv)
