import type { SpiffeId } from './types.ts'

/** SPIFFE-ID section 2.3: implementations must take this many bytes, and need not take more. */
const maxIdBytes = 2048

/** One anchored expression on the bytes as they are: `new URL()` would normalise, and two spellings would be one agent. */
const idForm = /^spiffe:\/\/[a-z0-9._-]{1,255}(?:\/[A-Za-z0-9._-]+)+$/
const patternForm =
  /^spiffe:\/\/[a-z0-9._-]{1,255}(?:\/(?:[A-Za-z0-9._-]+|\*))*\/(?:[A-Za-z0-9._-]+|\*\*?)$/
const dotSegment = /\/\.\.?(?:\/|$)/

/**
 * Reads the SPIFFE ID of a workload; undefined when the text is anything else. A workload has a path: the bare trust
 * domain names the authority, not somebody who can ask.
 */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  return isWorkloadId(text) ? text : undefined
}

/** `example.org` of `spiffe://example.org/ns/a`: what selects the trust bundle. */
export function trustDomainOf(id: SpiffeId): string {
  const start = 'spiffe://'.length
  const end = id.indexOf('/', start)
  return id.slice(start, end === -1 ? undefined : end)
}

/** Whether the text is a pattern: a SPIFFE ID where a segment may be `*` and the last one `**`. */
export function isSpiffePattern(text: string): boolean {
  return text.length <= maxIdBytes && patternForm.test(text) && !hasDotSegment(text)
}

/**
 * Matches whole segments, so that `/ns/pay/**` never covers `/ns/payroll`. `*` is one segment, a last `**` is one or
 * more; the trust domain is always spelled out. A malformed pattern matches nothing.
 */
export function matchesSpiffePattern(id: SpiffeId, pattern: string): boolean {
  if (!isSpiffePattern(pattern)) return false
  const segments = id.split('/')
  const wanted = pattern.split('/')
  const isOpen = wanted.at(-1) === '**'
  if (isOpen ? segments.length < wanted.length : segments.length !== wanted.length) return false
  return wanted.every((want, index) => want === '*' || want === '**' || want === segments[index])
}

function isWorkloadId(text: string): text is SpiffeId {
  return text.length <= maxIdBytes && idForm.test(text) && !hasDotSegment(text)
}

function hasDotSegment(text: string): boolean {
  return dotSegment.test(text.slice('spiffe://'.length))
}
