import { parseSubject } from '../policy/subject.ts'

/** What a deny list says, line by line. */
export interface DenyList {
  readonly entries: readonly DenyEntry[]
  readonly problems: readonly DenyListProblem[]
}

export interface DenyEntry {
  /** From 1. */
  readonly line: number
  readonly subject: string
  readonly reason: string
}

export interface DenyListProblem {
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly col: number
  /** Says what was expected, and quotes nothing of the line. */
  readonly message: string
}

/** About a thousand lines, and never more than the audit takes at once: each is put on record. */
export const maxDenyListBytes = 64 * 1024

/**
 * Reads a deny list: one subject per line, then a blank and a reason if there is one, as on the channel. Lines that
 * begin with `#` are comments: elsewhere in a line `#` is part of a subject or of a reason. A line that cannot be read
 * takes no other line with it. A subject that stands twice is its first line.
 */
export function parseDenyList(text: string): DenyList {
  const entries = new Map<string, DenyEntry>()
  const problems: DenyListProblem[] = []
  for (const [index, whole] of text.split('\n').entries()) {
    const said = whole.trim()
    if (said === '' || said.startsWith('#')) continue
    const line = index + 1
    const [word = ''] = said.split(/\s/, 1)
    const subject = parseSubject(word)
    if (subject === undefined) {
      const col = whole.length - whole.trimStart().length + 1
      problems.push({ line, col, message: expected })
    } else if (!entries.has(subject)) {
      const reason = said.slice(word.length).trim().slice(0, maxReasonChars)
      entries.set(subject, { line, subject, reason: reason || 'in the deny file' })
    }
  }
  return { entries: [...entries.values()], problems }
}

const expected =
  'Expected a subject such as task:T-1, agent:spiffe://td/agent/a, upstream:github or all, then a reason'
const maxReasonChars = 1024
