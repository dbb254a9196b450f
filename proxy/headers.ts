import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import { fieldName } from './field-name.ts'

type Pair = readonly [name: string, value: string]

export interface OutboundHeaderOptions {
  /** The upstream's own authority. */
  readonly host: string
  /** Lower-case names that the issuer writes. */
  readonly slots: readonly string[]
  readonly injected: readonly Pair[]
  /** Ask the upstream for an answer that can be read: `accept-encoding: identity`. */
  readonly stripAcceptEncoding: boolean
  /** A WebSocket handshake: keeps `Sec-WebSocket-*`. The upstream client writes `Connection` and `Upgrade`. */
  readonly upgrade?: boolean
  /** Says to an HTTP/2 upstream that trailers are read: gRPC servers refuse a call that does not (`TE` itself is hop-by-hop). */
  readonly trailers?: boolean
}

/**
 * The request's fields for the upstream, as flat pairs. Strips first and injects last, so that nothing the agent sends
 * removes, doubles or precedes what we write. Keeps one canonical Content-Length; `Transfer-Encoding` is the forwarder's.
 */
export function outboundHeaders(
  rawHeaders: readonly string[],
  options: OutboundHeaderOptions,
): string[] {
  const { host, slots, injected, stripAcceptEncoding, upgrade = false, trailers = false } = options
  const taken = new Set(connectionOptions(rawHeaders))
  for (const slot of slots) taken.add(fieldName(slot).folded)
  for (const [name] of injected) taken.add(fieldName(name).folded)
  taken.delete('content-length')
  if (upgrade) taken.add('content-length')
  if (stripAcceptEncoding) taken.add('accept-encoding')

  const out = ['host', host]
  let hasLength = false
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? ''
    const value = rawHeaders[index + 1] ?? ''
    const { folded, isOwned, isHopByHop } = fieldName(name)
    if (isOwned || isHopByHop || taken.has(folded)) continue
    if (!upgrade && folded.startsWith('sec-websocket-')) continue
    if (folded === 'content-length') {
      if (hasLength || !canonicalLength.test(value)) continue
      hasLength = true
    }
    out.push(name, value)
  }
  if (stripAcceptEncoding) out.push('accept-encoding', 'identity')
  if (trailers) out.push('te', 'trailers')
  out.push('via', via)
  for (const [name, value] of injected) out.push(name, value)
  return out
}

/**
 * The answer's fields for the agent, as flat pairs. Whatever concerns our credential, our connection or our own
 * statements stays out: an upstream's 401 is about us, and only we speak in `chaperone-*`.
 */
export function inboundResponseHeaders(
  raw: readonly string[],
  { allowSetCookie }: { readonly allowSetCookie: boolean },
): string[] {
  const out = passedFields(raw, { allowSetCookie })
  out.push('via', via)
  return out
}

/** What stands behind an answer's body, for an agent that reads it: never framing, routing or a credential (RFC 9110 section 6.5.1). */
export function trailerFields(raw: readonly string[]): [string, string][] {
  const passed = passedFields(raw, { allowSetCookie: false })
  const trailers: [string, string][] = []
  for (let index = 0; index + 1 < passed.length; index += 2) {
    const name = passed[index] ?? ''
    if (!isMisplacedTrailer(name)) trailers.push([name, passed[index + 1] ?? ''])
  }
  return trailers
}

/** Whether a field means something else, or too much, behind a body. */
export function isMisplacedTrailer(name: string): boolean {
  const { folded, isOwned, isHopByHop } = fieldName(name)
  return isOwned || isHopByHop || headOnly.has(folded) || folded.startsWith('content-')
}

function passedFields(
  raw: readonly string[],
  { allowSetCookie }: { readonly allowSetCookie: boolean },
): string[] {
  const listed = new Set(connectionOptions(raw))
  // RFC 9110 section 7.6.1: a listed framing field would leave a body without its length.
  listed.delete('content-length')
  const out: string[] = []
  let hasLength = false
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? ''
    const value = raw[index + 1] ?? ''
    const { folded, isHopByHop, isWithheld, isCookie } = fieldName(name)
    if (isHopByHop || isWithheld || listed.has(folded)) continue
    if (isCookie && !allowSetCookie) continue
    if (folded === 'content-length') {
      if (hasLength || !canonicalLength.test(value)) continue
      hasLength = true
    }
    out.push(name, value)
  }
  return out
}

/**
 * The query for the upstream: the agent's bytes, then the injected pairs. A slot name among the agent's own is an attempt
 * to choose the credential and is refused, in every spelling that a server may take for it.
 */
export function outboundQuery(
  query: string | undefined,
  { slots, injected }: { readonly slots: readonly string[]; readonly injected: readonly Pair[] },
): { readonly query: string | undefined } | Denial {
  const taken = new Set([...slots, ...injected.map(([name]) => name)].map(foldParameter))
  if (query !== undefined && taken.size > 0) {
    // Some servers separate at `;` too.
    const names = query.split(/[&;]/).map((pair) => foldParameter(parameterName(pair)))
    if (names.some((name) => taken.has(name))) {
      return deny('credential-ambiguous', 'query: the agent wrote a credential parameter')
    }
  }
  if (injected.length === 0) return { query }
  const added = injected.map((pair) => pair.map(encodeURIComponent).join('=')).join('&')
  return { query: query === undefined || query === '' ? added : `${query}&${added}` }
}

/** The folded names that the `Connection` fields list. */
export function connectionOptions(raw: readonly string[]): readonly string[] {
  const options: string[] = []
  for (let index = 0; index + 1 < raw.length; index += 2) {
    if (fieldName(raw[index] ?? '').folded !== 'connection') continue
    for (const option of (raw[index + 1] ?? '').split(',')) {
      const { folded } = fieldName(option.trim())
      if (folded !== '') options.push(folded)
    }
  }
  return options
}

/** RFC 9110 section 7.6.3. Under a name of ours: which host the agent runs on is nobody's business. */
const via = '1.1 chaperone'

/** Fields that a reader acts on before it has the body. */
const headOnly: ReadonlySet<string> = new Set([
  'age',
  'cache-control',
  'date',
  'expires',
  'location',
  'mcp-session-id',
  'pragma',
  'retry-after',
  'vary',
  'warning',
])

/** A decimal without sign, space or leading zero, within exact integers. */
export const canonicalLength = /^(?:0|[1-9]\d{0,14})$/

function parameterName(pair: string): string {
  const equals = pair.indexOf('=')
  return decodeBytes(equals === -1 ? pair : pair.slice(0, equals))
}

/** Case, outer spaces and `[...]` are what lenient servers overlook. */
function foldParameter(name: string): string {
  return name.replace(/\[.*$/s, '').trim().toLowerCase()
}

/** By bytes, not as UTF-8: a slot's name is ASCII and a bad sequence elsewhere must not hide it. */
function decodeBytes(text: string): string {
  return text
    .replaceAll('+', ' ')
    .replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)))
}
