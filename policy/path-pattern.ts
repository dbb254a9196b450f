/**
 * Whether a request path is inside a path pattern, segment by segment. The path is raw: each segment is percent-decoded
 * once, after the split, so that an encoded slash cannot move a boundary. `*` is one segment that is not empty, a last
 * `**` is one or more.
 */
export function matchesPath(pattern: string, path: string): boolean {
  if (!path.startsWith('/') || !pattern.startsWith('/')) return false
  const wanted = pattern.split('/')
  const isOpen = wanted.at(-1) === '**'
  const segments = path.split('/')
  if (isOpen ? segments.length < wanted.length : segments.length !== wanted.length) return false
  // Every segment is decoded, also those under `**`: a path that has a bad part anywhere is nobody's.
  return segments.every((segment, index) => {
    const decoded = decodeSegment(segment)
    if (decoded === undefined) return false
    if (isOpen && index >= wanted.length - 1) return true
    const want = wanted[index]
    return want === '*' ? decoded !== '' : want === decoded
  })
}

/**
 * Whether every text that the narrow pattern matches is matched by the wide one too, segment by segment; of path patterns
 * and of SPIFFE ID patterns alike. Both must be well-formed.
 */
export function coversPattern(wide: string, narrow: string): boolean {
  const wanted = wide.split('/')
  const segments = narrow.split('/')
  const isOpen = wanted.at(-1) === '**'
  // A `**` is at least one segment: a pattern is no longer than the shortest text that it matches.
  if (isOpen ? segments.length < wanted.length : segments.length !== wanted.length) return false
  return wanted.every((want, index) => {
    if (isOpen && index === wanted.length - 1) return true
    const segment = segments[index]
    if (want === '*') return segment !== '' && segment !== '**'
    return want === segment
  })
}

/** Whether the text is a path pattern. What looks like a wildcard but is none is refused, not taken literally. */
export function isPathPattern(text: string): boolean {
  if (!patternForm.test(text)) return false
  const [, ...segments] = text.split('/')
  return segments.every((segment, index) => {
    const isLast = index === segments.length - 1
    if (segment === '') return isLast
    if (segment === '**') return isLast
    return segment === '*' || (!segment.includes('*') && !isDots(segment))
  })
}

/** Decoded text: `%`, `?`, `#`, `;`, `\` and control characters could not be what a judged path has. */
const patternForm = /^\/[^%?#;\\\p{Cc}]*$/u
const forbidden = /[/\\;\p{Cc}]/u

export function decodeSegment(segment: string): string | undefined {
  try {
    const decoded = segment.includes('%') ? decodeURIComponent(segment) : segment
    return forbidden.test(decoded) || isDots(decoded) ? undefined : decoded
  } catch {
    return undefined
  }
}

function isDots(segment: string): boolean {
  return segment === '.' || segment === '..'
}
