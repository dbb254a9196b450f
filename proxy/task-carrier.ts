import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import { isTxn } from './route.ts'

/** How a request names its task. With a grant, `txn` is what the other carriers say and must be compared with it. */
export interface TaskCarrier {
  /** A compact JWS by its form; nothing in it was verified. */
  readonly grant?: string
  readonly txn?: string
  readonly carrier: 'task-grant' | 'task-id' | 'path'
}

/**
 * Reads `Task-Grant`, `Task-Id` and the path's task. At most one field of each, each well-formed, all of one task.
 * Undefined when the request names none.
 */
export function taskCarrier(
  rawHeaders: readonly string[],
  pathTxn: string | undefined,
): TaskCarrier | undefined | Denial {
  const grants = valuesOf(rawHeaders, 'task-grant')
  const ids = valuesOf(rawHeaders, 'task-id')
  if (grants.length > 1) return deny('task-conflict', 'more than one Task-Grant field')
  if (ids.length > 1) return deny('task-conflict', 'more than one Task-Id field')
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
    return { grant, ...(txn !== undefined && { txn }), carrier: 'task-grant' }
  }
  if (txn === undefined) return undefined
  return { txn, carrier: id === undefined ? 'path' : 'task-id' }
}

const maxGrantBytes = 8192
const compactForm = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/

function isCompactJws(text: string): boolean {
  return text.length <= maxGrantBytes && compactForm.test(text)
}

function valuesOf(rawHeaders: readonly string[], name: string): readonly string[] {
  return rawHeaders.filter((_, index) => {
    const isValue = index % 2 === 1
    return isValue && rawHeaders[index - 1]?.toLowerCase() === name
  })
}
