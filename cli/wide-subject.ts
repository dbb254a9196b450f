import { createInterface } from 'node:readline/promises'
import type { RevocationOp } from '../policy/types.ts'

/** Subjects that cover tasks nobody listed. */
export function isWide(subject: string): boolean {
  return /^(all$|agent-prefix:|trust-domain:|upstream:|approver:)/.test(subject)
}

/** True when the operator types the subject again. Without a terminal nobody can: false, and says how else. */
export async function isTyped(subject: string, op: RevocationOp): Promise<boolean> {
  if (!process.stdin.isTTY) {
    process.stderr.write(`"${subject}" may cover many tasks. Add --yes when that is meant.\n`)
    return false
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const question = `"${subject}" may cover many tasks. Type it again to ${op} it: `
    if ((await terminal.question(question)) === subject) return true
    process.stderr.write('Not the same: nothing was recorded.\n')
    return false
  } finally {
    terminal.close()
  }
}
