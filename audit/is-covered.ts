import { agentSubjects } from '../policy/subject.ts'
import type { SpiffeId } from '../policy/types.ts'
import type { ReadDecision } from './read-record.ts'

/** Whether a revocation of this subject covers what was decided: of its task, and of every task that hangs above it. */
export function isCovered(
  { task, agent, upstream, request }: Pick<ReadDecision, 'task' | 'agent' | 'upstream' | 'request'>,
  subject: string,
): boolean {
  if (subject === 'all') return true
  const ancestors = task?.ancestors ?? []
  const kind = subject.slice(0, subject.indexOf(':'))
  switch (kind) {
    case 'task':
      return [task, ...ancestors].some((one) => subject === `task:${one?.txn}`)
    case 'grant':
      return (
        task?.chain.some((jti, at) => subject === `grant:${task.approvers[at]}#${jti}`) ?? false
      )
    case 'approver':
      return task?.approvers.some((approver) => subject === `approver:${approver}`) ?? false
    case 'upstream':
      return subject === `upstream:${upstream}`
    case 'tool':
      return subject === `tool:${upstream}/${request.mcp?.tool}`
    default:
      return [agent, ...ancestors].some(
        (one) => isSpiffeId(one?.spiffe_id) && agentSubjects(one.spiffe_id).includes(subject),
      )
  }
}

/** A record names neither the person behind a grant nor the credential that went out: by these nobody can tell. */
export function isTold(subject: string): boolean {
  return !/^(?:credential:|approver:[^#]*#)/.test(subject)
}

function isSpiffeId(text: string | undefined): text is SpiffeId {
  return text?.startsWith('spiffe://') ?? false
}
