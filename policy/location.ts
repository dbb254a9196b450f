/**
 * Brings the origin of a location into the one form in which locations are compared: `https://host`, lower case,
 * default port left out, the first label perhaps `*`. Undefined when the text is anything else, or could be read as
 * another host.
 */
export function canonicalOrigin(text: string, schemes: readonly Scheme[]): string | undefined {
  const match = originForm.exec(text)
  if (!match) return undefined
  const [, scheme = '', wildcard = '', host = '', port = ''] = match
  if (!schemes.some((known) => known === scheme)) return undefined
  const url = parseUrl(`${scheme}://${host}${port}`)
  // `127.1`, `0x7f.1` and `[0::1]` are other spellings of hosts that we would dial under their canonical one.
  if (!url || url.hostname !== host) return undefined
  if (wildcard !== '' && (host.startsWith('[') || ipv4Like.test(host))) return undefined
  return `${scheme}://${wildcard}${url.host}`
}

export type Scheme = 'http' | 'https' | 'ws' | 'wss'

/** The same for a whole URL without query, as an MCP server has one. No wildcard anywhere. `/` stands for no path. */
export function canonicalUrl(text: string): string | undefined {
  const start = text.indexOf('/', text.indexOf('://') + 3)
  const origin = start === -1 ? text : text.slice(0, start)
  const path = start === -1 ? '/' : text.slice(start)
  const canonical = canonicalOrigin(origin, ['http', 'https'])
  if (canonical === undefined || canonical.includes('*')) return undefined
  return urlPathForm.test(path) && !dotSegment.test(path) ? canonical + path : undefined
}

/** Whether a canonical origin, perhaps with a `*` label, covers another. The `*` is exactly one label. */
export function coversOrigin(pattern: string, origin: string): boolean {
  if (pattern === origin) return true
  const star = pattern.indexOf('://*.')
  if (star === -1) return false
  const scheme = pattern.slice(0, star + 3)
  const dot = origin.indexOf('.')
  if (dot <= scheme.length || !origin.startsWith(scheme)) return false
  return origin.slice(dot) === pattern.slice(star + 4)
}

/** `https://host` of `https://host/mcp`; `ws:` and `wss:` become the `http:` and `https:` that is dialled. */
export function httpOriginOf(location: string): string {
  const end = location.indexOf('/', location.indexOf('://') + 3)
  const origin = end === -1 ? location : location.slice(0, end)
  return origin.startsWith('ws') ? `http${origin.slice('ws'.length)}` : origin
}

const originForm =
  /^(https?|wss?):\/\/(\*\.)?([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?$/
const ipv4Like = /(?:^|\.)\d+$/
/** Unreserved and harmless characters of RFC 3986 section 3.3: nothing that has a second spelling. */
const urlPathForm = /^\/(?:[A-Za-z0-9._~!$&'()+,=:@-]+(?:\/[A-Za-z0-9._~!$&'()+,=:@-]+)*\/?)?$/
const dotSegment = /\/\.\.?(?:\/|$)/

function parseUrl(text: string): URL | undefined {
  return URL.parse(text) ?? undefined
}
