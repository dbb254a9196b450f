import type { Grant, SignOff, SpiffeId } from './types.ts'

/**
 * What a revocation may name, one string each (also the form on the Redis channel):
 * `task:<txn>`, `agent:<spiffe id>`, `agent-prefix:<spiffe id path>`, `grant:<iss>#<jti>`, `credential:<iss>#<jti>`,
 * `approver:<iss>[#<sub>]`, `trust-domain:<td>`, `upstream:<name>`, `tool:<upstream>/<tool>`, `all`.
 */
export const subjectKinds = [
  'task',
  'agent',
  'agent-prefix',
  'grant',
  'credential',
  'approver',
  'trust-domain',
  'upstream',
  'tool',
] as const

/** 2 KiB of SPIFFE ID plus the kind: nothing longer can be in force for anyone. */
const maxSubjectBytes = 2304

/** Returns the subject when it is well-formed, else undefined. Printable ASCII only: a subject reaches terminals. */
export function parseSubject(text: string): string | undefined {
  if (text === 'all') return text
  if (text.length > maxSubjectBytes || !/^[\x21-\x7e]+$/.test(text)) return undefined
  const colon = text.indexOf(':')
  const kind = text.slice(0, colon)
  const value = text.slice(colon + 1)
  if (!subjectKinds.some((known) => known === kind) || value === '') return undefined
  return isValueOf(kind, value) ? text : undefined
}

function isValueOf(kind: string, value: string): boolean {
  switch (kind) {
    case 'task':
      return /^[A-Za-z0-9._~-]{1,128}$/.test(value)
    case 'agent':
    case 'agent-prefix':
      return /^spiffe:\/\/[a-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/.test(value)
    case 'grant':
    case 'credential':
      return /^[^#]+#[^#]+$/.test(value)
    case 'approver':
      return /^[^#]+(#[^#]+)?$/.test(value)
    case 'trust-domain':
      return /^[a-z0-9._-]{1,255}$/.test(value)
    case 'upstream':
      return /^[a-z0-9-]{1,63}$/.test(value)
    default:
      return /^[a-z0-9-]{1,63}\/.+$/.test(value)
  }
}

/**
 * Every subject whose revocation ends this chain: tasks, agents with each path prefix, trust domains, grants, approvers
 * and the person behind it of every link, then sign-offs, then `all`. Built once per chain; a check is one look-up per entry.
 */
export function chainSubjects(
  links: readonly Grant[],
  signOffs: readonly SignOff[] = [],
): string[] {
  const subjects = new Set<string>()
  for (const link of links) {
    subjects.add(`task:${link.txn}`)
    subjects.add(`grant:${link.approver}#${link.jti}`)
    subjects.add(`approver:${link.approver}`)
    const { onBehalfOf: person } = link
    if (person) subjects.add(`approver:${person.iss}#${person.sub}`)
    for (const subject of agentSubjects(link.agent)) subjects.add(subject)
  }
  for (const signOff of signOffs) {
    subjects.add(`approver:${signOff.approver}`)
    subjects.add(`approver:${signOff.approver}#${signOff.subject}`)
  }
  subjects.add('all')
  return [...subjects]
}

/** Subjects of an agent alone: known before any grant is. A prefix ends at a segment: `/ns/a` never covers `/ns/ab`. */
export function agentSubjects(agent: SpiffeId): string[] {
  const [trustDomain = '', ...segments] = agent.slice('spiffe://'.length).split('/')
  const subjects = [`agent:${agent}`, `trust-domain:${trustDomain}`]
  let prefix = `spiffe://${trustDomain}`
  subjects.push(`agent-prefix:${prefix}`)
  for (const segment of segments) {
    prefix += `/${segment}`
    subjects.push(`agent-prefix:${prefix}`)
  }
  return subjects
}
