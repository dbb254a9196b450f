import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import { isTxn } from './route.ts'

/** How a request names its task. With a grant, `txn` is what the other carriers say and must be compared with it. */
export interface TaskCarrier {
  /** A compact JWS by its form; nothing in it was verified. */
  readonly grant?: string
  readonly txn?: string
  /** Grants that the task's own hangs on, as `Task-Grant-Chain` brought them: of the same form, and no more verified. */
  readonly ancestors: readonly string[]
  readonly carrier: 'task-grant' | 'task-id' | 'path'
}

/**
 * Reads `Task-Grant`, `Task-Grant-Chain`, `Task-Id` and the path's task. At most one field of each, each well-formed, all
 * of one task. Undefined when the request names none.
 */
export function taskCarrier(
  rawHeaders: readonly string[],
  pathTxn: string | undefined,
): TaskCarrier | undefined | Denial {
  const { grants, ids, chains } = readFields(rawHeaders)
  if (grants.length > 1) return deny('task-conflict', 'more than one Task-Grant field')
  if (ids.length > 1) return deny('task-conflict', 'more than one Task-Id field')
  const ancestors = readAncestors(chains)
  if (!isList(ancestors)) return ancestors
  const [grant] = grants
  const [id] = ids
  if (grant !== undefined && !isCompactJws(grant)) {
    return deny('task-grant-invalid', 'Task-Grant is not a compact JWS of at most 8 KiB')
  }
  if (id !== undefined && !isTxn(id)) return deny('request-refused', 'Task-Id is malformed')
  if (id !== undefined && pathTxn !== undefined && id !== pathTxn) {
    return deny('task-conflict', 'Task-Id and the path name different tasks')
  }
  const txn = id ?? pathTxn
  if (grant !== undefined) {
    return { grant, ...(txn !== undefined && { txn }), ancestors, carrier: 'task-grant' }
  }
  if (txn === undefined) return undefined
  return { txn, ancestors, carrier: id === undefined ? 'path' : 'task-id' }
}

const maxGrantBytes = 8192
/** More would not fit into a head: the rest comes from the store. */
const maxAncestors = 3

function readAncestors(fields: readonly string[]): readonly string[] | Denial {
  if (fields.length > 1) return deny('task-conflict', 'more than one Task-Grant-Chain field')
  const grants = fields.flatMap((field) => field.split(',').map((grant) => grant.trim()))
  if (grants.length <= maxAncestors && grants.every(isCompactJws)) return grants
  return deny('task-grant-invalid', `Task-Grant-Chain is not 1 to ${maxAncestors} compact JWSs`)
}

function isList(value: readonly string[] | Denial): value is readonly string[] {
  return Array.isArray(value)
}

const compactForm = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/

function isCompactJws(text: string): boolean {
  return text.length <= maxGrantBytes && compactForm.test(text)
}

interface Fields {
  readonly grants: readonly string[]
  readonly ids: readonly string[]
  readonly chains: readonly string[]
}

/** The values of our fields, by one pass: this runs for every request. */
function readFields(rawHeaders: readonly string[]): Fields {
  const grants: string[] = []
  const ids: string[] = []
  const chains: string[] = []
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const value = rawHeaders[index + 1] ?? ''
    const name = rawHeaders[index]?.toLowerCase()
    if (name === 'task-grant') grants.push(value)
    else if (name === 'task-id') ids.push(value)
    else if (name === 'task-grant-chain') chains.push(value)
  }
  return { grants, ids, chains }
}
