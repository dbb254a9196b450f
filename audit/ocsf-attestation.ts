import { hash } from 'node:crypto'
import { canonicalText } from './canonical.ts'
import { genesis } from './chain.ts'
import type { ReadRecord } from './read-record.ts'

export type OcsfValue =
  | string
  | number
  | boolean
  | undefined
  | readonly OcsfValue[]
  | { readonly [name: string]: OcsfValue }

export interface OcsfEvent {
  readonly [name: string]: OcsfValue
}

/**
 * Gives events their `attestation_list`, each bound to the one before (OCSF 1.9, profile `record_integrity`): the
 * fingerprint is over the RFC 8785 form of the event without that fingerprint. It is of the export, not of the record:
 * whoever has the file verifies its own chain. A chain of the file is a chain here. Pass every record; one without an
 * event has none.
 */
export function attestationsOf(): (record: ReadRecord, event?: OcsfEvent) => string {
  let chainUid = ''
  let previous: OcsfValue
  return (record, event) => {
    if (record.prev === genesis.hash && record.hash !== chainUid) {
      chainUid = record.hash
      previous = undefined
    }
    if (!event) return ''
    const { metadata, type_uid: typeUid } = event
    const uid = uidOf(metadata)
    const links = { uid, chain_uid: chainUid, prev_event: previous }
    const fingerprint = {
      algorithm_id: 3,
      algorithm: 'SHA-256',
      serialization_id: 2,
      serialization: 'JCS',
      value: hash('sha256', canonicalText({ ...event, attestation_list: [links] })),
    }
    previous = { uid, type_uid: typeUid, fingerprint }
    return canonicalText({ ...event, attestation_list: [{ ...links, fingerprint }] })
  }
}

function uidOf(metadata: OcsfValue): OcsfValue {
  const isObject = typeof metadata === 'object' && !Array.isArray(metadata)
  return isObject && 'uid' in metadata ? metadata.uid : undefined
}
