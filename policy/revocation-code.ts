import { deny } from './denial.ts'
import type { Denial, DenialCode, Revocation } from './types.ts'

/** The refusal of whatever the record covers. */
export function denialOfRevocation(record: Revocation): Denial {
  const { rid, op, subject } = record
  return deny(codeOfRevocation(record), `${op} ${rid} of ${subject}`, { revocation: record })
}

/** What a refusal or a cut is called, by the record that caused it. A pause is one whatever it names: it may be lifted. */
export function codeOfRevocation({ op, subject }: Revocation): DenialCode {
  if (op === 'pause') return 'task-paused'
  if (op === 'quarantine' || agentKinds.has(subject.slice(0, subject.indexOf(':')))) {
    return 'agent-quarantined'
  }
  return 'task-terminated'
}

const agentKinds: ReadonlySet<string> = new Set(['agent', 'agent-prefix', 'trust-domain'])
