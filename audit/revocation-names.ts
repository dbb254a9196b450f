/**
 * The ids of one revocation on record. A bare message has one of its own, the same for every message of its subject, until
 * the store gives it one that begins with it: what was cut at once stands under the first.
 */
export interface RevocationNames {
  /** That of the store. Of a bare message that was asked for, the first that is met. */
  rid: string
  /** That of the bare message, if it was one. */
  readonly heard: string | undefined
}

export function revocationNames(rid: string): RevocationNames {
  return { rid, heard: bareRid.exec(rid)?.groups?.['heard'] }
}

/** Whether the record is this revocation. A later one of the same bare message is another. */
export function isNamed(names: RevocationNames, rid: string): boolean {
  if (names.rid === names.heard && rid.startsWith(`${names.heard}-`)) names.rid = rid
  return rid === names.rid || rid === names.heard
}

/** Whether the store made another record of the same bare message: what was heard before was that one. */
export function isOther({ rid: own, heard }: RevocationNames, rid: string): boolean {
  return heard !== undefined && own !== heard && rid !== own && rid.startsWith(`${heard}-`)
}

const bareRid = /^(?<heard>bare-[0-9a-f]{32})(?:-\d+-\d+)?$/
