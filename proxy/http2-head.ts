/** The head of an HTTP/2 request in the form that the steps read: Host first, no pseudo-header fields. */
export interface Http2Head {
  readonly method: string
  /** `:path`, as it came. */
  readonly url: string
  /** Flat name, value, name, value. */
  readonly rawHeaders: readonly string[]
  /** What gives the head more than one reading; undefined when it has one. */
  readonly problem: string | undefined
}

/**
 * Reads the fields of a HEADERS frame (RFC 9113 section 8.3.1), flat, as they came. The library below refuses most of
 * what this refuses; what is judged must not rest on that.
 */
export function readHttp2Head(raw: readonly string[]): Http2Head {
  const pseudo = new Map<string, string>()
  const hosts: string[] = []
  const regular: string[] = []
  let problem: string | undefined
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? ''
    const value = raw[index + 1] ?? ''
    if (name.startsWith(':')) {
      problem ??= findPseudoProblem(name, { isLate: regular.length > 0, isTwice: pseudo.has(name) })
      pseudo.set(name, value)
      continue
    }
    problem ??= findFieldProblem(name, value)
    if (name === 'host') hosts.push(value)
    else regular.push(name, value)
  }
  const authority = pseudo.get(':authority')
  problem ??= findRequestProblem(pseudo, hosts)
  return {
    method: pseudo.get(':method') ?? '',
    url: pseudo.get(':path') ?? '',
    rawHeaders: ['host', authority ?? hosts[0] ?? '', ...regular],
    problem,
  }
}

/** `:protocol` would be a tunnel (RFC 8441). */
const requestPseudo: ReadonlySet<string> = new Set([':method', ':scheme', ':authority', ':path'])

/** RFC 9113 section 8.2.2: one connection's own business, which HTTP/2 has frames for. */
const connectionSpecific: ReadonlySet<string> = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])

function findPseudoProblem(
  name: string,
  { isLate, isTwice }: { readonly isLate: boolean; readonly isTwice: boolean },
): string | undefined {
  if (!requestPseudo.has(name)) return 'http2: an unknown pseudo-header field'
  if (isTwice) return 'http2: a pseudo-header field stands more than once'
  return isLate ? 'http2: a pseudo-header field behind a regular one' : undefined
}

function findFieldProblem(name: string, value: string): string | undefined {
  if (name !== name.toLowerCase()) return 'http2: a field name with a capital letter'
  if (connectionSpecific.has(name)) return 'http2: a field of one connection'
  return name === 'te' && value !== 'trailers' ? 'http2: TE is not "trailers"' : undefined
}

function findRequestProblem(
  pseudo: ReadonlyMap<string, string>,
  hosts: readonly string[],
): string | undefined {
  const scheme = pseudo.get(':scheme')
  const authority = pseudo.get(':authority')
  if (!pseudo.has(':method') || !pseudo.has(':path')) return 'http2: no :method or no :path'
  if (scheme !== 'http' && scheme !== 'https') return 'http2: :scheme is not http or https'
  if (hosts.length > 1) return 'http2: host stands more than once'
  const isOther = authority !== undefined && hosts.length === 1 && hosts[0] !== authority
  return isOther ? 'http2: :authority and host differ' : undefined
}
