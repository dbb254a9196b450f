import type { ReadDecision, ReadRecord } from './read-record.ts'

/** What a record must fit, all of it. Times are epoch milliseconds; `untilMs` is the first that does not fit. */
export interface AuditQuery {
  readonly txn?: string
  readonly agent?: string
  readonly rid?: string
  readonly code?: string
  readonly sinceMs?: number
  readonly untilMs?: number
}

export function fitsQuery(record: ReadRecord, query: AuditQuery): boolean {
  const ms = Date.parse(record.ts)
  if (query.sinceMs !== undefined && ms < query.sinceMs) return false
  if (query.untilMs !== undefined && ms >= query.untilMs) return false
  const facts = factsOf(record, query.rid)
  return names.every((name) => query[name] === undefined || query[name] === facts[name])
}

/** One line for a terminal; the caller makes it printable. */
export function describeRecord(record: ReadRecord): string {
  const words = [record.ts, record.type, ...wordsOf(record)]
  return words.join('  ')
}

const names = ['txn', 'agent', 'rid', 'code'] as const

type Facts = { readonly [name in (typeof names)[number]]?: string | null | undefined }

/** A lift belongs to each record that it names. */
function factsOf(record: ReadRecord, asked: string | undefined): Facts {
  if (record.type === 'decision') {
    const { rid, code } = record.decision
    return { txn: record.task?.txn, agent: record.agent?.spiffe_id, rid, code }
  }
  if (record.type === 'outcome') {
    return { txn: record.txn, rid: record.cut?.rid, code: record.cut?.code }
  }
  if (record.type === 'lift')
    return { rid: record.lifts.find((rid) => rid === asked) ?? record.rid }
  return record.type === 'revocation' ? { rid: record.rid, ...subjectFacts(record.subject) } : {}
}

/** A revocation of a task or an agent belongs to what is asked about them. */
function subjectFacts(subject: string): Facts {
  if (subject.startsWith('task:')) return { txn: subject.slice('task:'.length) }
  if (subject.startsWith('agent:')) return { agent: subject.slice('agent:'.length) }
  return {}
}

function wordsOf(record: ReadRecord): readonly string[] {
  switch (record.type) {
    case 'decision':
      return decisionWords(record)
    case 'outcome': {
      const { end, cut, txn, bytes_up: up, bytes_down: down } = record
      const how = cut ? `${end} ${cut.code} ${cut.how} after ${cut.after_ms} ms` : end
      return [how, `${up} B up`, `${down} B down`, txn ?? '-']
    }
    case 'revocation':
      return [`${record.op} ${record.subject}`, record.rid, `by ${record.by}`, record.reason]
    case 'lift':
      return [`lift ${record.lifts.join(', ')}`, record.rid, `by ${record.by}`, record.reason]
    case 'checkpoint':
      return [`up to ${record.checkpoint.seq}`]
    case 'gap':
      return [`${record.detail.records} records in the spool since ${record.detail.since}`]
    case 'unread':
      return Object.entries(record.detail).map(([reason, count]) => `${count} ${reason}`)
    case 'start':
    case 'stop':
    case 'config':
    case 'heartbeat':
      return [record.sidecar.instance]
  }
}

function decisionWords({ decision, request, task, agent }: ReadDecision): readonly string[] {
  const { effect, code, rid } = decision
  return [
    code === null ? effect : `${effect} ${code}`,
    `${request.method} ${request.path}`,
    task?.txn ?? '-',
    agent?.spiffe_id ?? '-',
    ...(rid === undefined ? [] : [rid]),
  ]
}
