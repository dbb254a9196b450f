import type { OcsfValue } from './ocsf-attestation.ts'
import type { ReadRecord } from './read-record.ts'

/** The version of the Open Cybersecurity Schema Framework that the events are written in. */
export const ocsfVersion = '1.9.0'

/** A value of an enumeration of OCSF: its number and its caption. */
export interface Named {
  readonly id: number
  readonly name: string
}

export const severities = { low: { id: 2, name: 'Low' }, medium: { id: 3, name: 'Medium' } }
export const informational: Named = { id: 1, name: 'Informational' }
export const success: Named = { id: 1, name: 'Success' }
export const failure: Named = { id: 2, name: 'Failure' }

export function classification(
  of: { readonly uid: number; readonly name: string },
  activity: Named,
) {
  return {
    class_uid: of.uid,
    class_name: of.name,
    activity_id: activity.id,
    activity_name: activity.name,
    type_uid: of.uid * 100 + activity.id,
    type_name: `${of.name}: ${activity.id === 99 ? 'Other' : activity.name}`,
  }
}

export function severity({ id, name }: Named) {
  return { severity_id: id, severity: name }
}

export function status({ id, name }: Named) {
  return { status_id: id, status: name }
}

/** Profile `security_control`. */
export function control(did: 'allowed' | 'denied' | 'cut') {
  switch (did) {
    case 'allowed':
      return { action_id: 1, action: 'Allowed', disposition_id: 1, disposition: 'Allowed' }
    case 'denied':
      return { action_id: 2, action: 'Denied', disposition_id: 26, disposition: 'Unauthorized' }
    case 'cut':
      return { action_id: 2, action: 'Denied', disposition_id: 24, disposition: 'Access Revoked' }
  }
}

export function metadataOf(
  { seq, hash, ts, type, sidecar }: ReadRecord,
  {
    uid,
    correlation,
    profiles,
  }: { readonly uid: string; readonly correlation: string; readonly profiles: readonly string[] },
): OcsfValue {
  return {
    version: ocsfVersion,
    product: { name: 'Chaperone', vendor_name: 'Chaperone', version: sidecar.version },
    profiles,
    uid,
    original_event_uid: hash,
    correlation_uid: correlation,
    event_code: type,
    sequence: seq,
    original_time: ts,
    log_name: 'audit',
  }
}

/** Where the record stands in its own chain, and what OCSF has no name for. */
export function unmapped(
  { seq, prev, hash }: ReadRecord,
  facts: Readonly<Record<string, string | number | undefined>>,
): OcsfValue {
  return { audit: { seq, prev, hash }, ...facts }
}
