import { existsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import { systemClock } from '../proxy/system-clock.ts'
import { maxDenyListBytes, parseDenyList } from '../revocation/deny-list.ts'
import { printable } from './printable.ts'

interface Denied {
  readonly subject: string
  readonly reason: string
  readonly by: string
}

/**
 * Puts a subject into a deny file, unless it stands there, and returns what to print. Rejects when the file cannot be
 * read, written, or hold one line more.
 */
export async function denyInFile(
  path: string,
  { json, ...denied }: Denied & { readonly json: boolean },
): Promise<string> {
  const { subject } = denied
  const text = read(path)
  const { entries, problems } = parseDenyList(text)
  for (const { line, col, message } of problems) {
    process.stderr.write(`${path}:${line}:${col} ${message}: this line denies nothing\n`)
  }
  const there = entries.find((entry) => entry.subject === subject)
  if (!there) await append(path, { text, denied })
  const added = !there
  const line = there?.line ?? lineAfter(text)
  if (json) return JSON.stringify({ subject, file: path, line, added })
  return [
    `${added ? 'written ' : 'is there'}  ${subject}, ${printable(path)} line ${line}`,
    'in force  on each sidecar whose revocation.denyFile this is, within a second of its copy: nobody confirms it here.',
    '          Ask each with /readyz?verbose, or look at chaperone_deny_file_subjects.',
    `until     the line is taken out. With the store at hand, make it a record: chaperone revoke ${subject} -r ...`,
  ].join('\n')
}

function read(path: string): string {
  if (!existsSync(path)) return ''
  try {
    return readTextFile(path, { maxBytes: maxDenyListBytes })
  } catch (error) {
    if (error instanceof TextFileError)
      throw new Error(`${path}: ${error.message}`, { cause: error })
    throw error
  }
}

/** At the end and in one piece: a rename would break a bind mount, and lose what another operator writes meanwhile. */
async function append(
  path: string,
  { text, denied }: { readonly text: string; readonly denied: Denied },
): Promise<void> {
  const { subject, reason, by } = denied
  const at = new Date(systemClock.now()).toISOString()
  const begin = isOpen(text) ? '\n' : ''
  const added = `${begin}# ${at} by ${printable(by)}\n${subject} ${reason}\n`
  if (Buffer.byteLength(text + added) > maxDenyListBytes) {
    throw new Error(
      `${path}: It would have more than ${maxDenyListBytes} bytes, and no sidecar would read it. Take out lines that are not needed any more.`,
    )
  }
  await using file = await open(path, 'a', 0o644)
  await file.appendFile(added)
  await file.sync()
}

/** The subject stands below a comment that says who and when. */
function lineAfter(text: string): number {
  return text.split('\n').length + (isOpen(text) ? 2 : 1)
}

function isOpen(text: string): boolean {
  return text !== '' && !text.endsWith('\n')
}
