import { Command } from 'commander'
import { vi } from 'vitest'
import { registerPolicy } from '../../cli/policy/policy.ts'

/** Runs `chaperone policy <args>` in this process. What the command throws, it throws. */
export async function runPolicy(
  ...args: readonly string[]
): Promise<{ readonly code: unknown; readonly out: string; readonly err: string }> {
  const out: string[] = []
  const err: string[] = []
  const stdout = vi
    .spyOn(process.stdout, 'write')
    .mockImplementation((text) => out.push(String(text)) > 0)
  const stderr = vi
    .spyOn(process.stderr, 'write')
    .mockImplementation((text) => err.push(String(text)) > 0)
  process.exitCode = 0
  try {
    const program = new Command()
    registerPolicy(program)
    await program.parseAsync(['policy', ...args], { from: 'user' })
    return { code: process.exitCode, out: out.join(''), err: err.join('') }
  } finally {
    process.exitCode = 0
    stdout.mockRestore()
    stderr.mockRestore()
  }
}
