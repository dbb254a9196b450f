/** A request target that has one reading, split at its first `?`. `query` is without the `?`. */
export type Target =
  | { readonly ok: true; readonly path: string; readonly query: string | undefined }
  | { readonly ok: false; readonly detail: string }

/**
 * Reads an origin-form target, at most 8 KiB. Refuses instead of normalising: what is judged is forwarded byte for byte,
 * so every reader of the path must come to the same segments.
 */
export function parseTarget(url: string): Target {
  if (url.length > maxTargetBytes) return refused('target: longer than 8 KiB')
  if (!url.startsWith('/')) return refused('target: not in origin-form')
  const mark = url.indexOf('?')
  const path = mark === -1 ? url : url.slice(0, mark)
  const query = mark === -1 ? undefined : url.slice(mark + 1)
  const problem = findPathProblem(path) ?? findQueryProblem(query)
  return problem === undefined ? { ok: true, path, query } : refused(problem)
}

const maxTargetBytes = 8192

/** `pchar` of RFC 3986 section 3.3 without `;`: path parameters are taken off by some servers and not by others. */
const pathForm = /^(?:[A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-Fa-f]{2})+$/
/** RFC 3986 section 3.4, and the brackets and bars that clients leave as they are. */
const queryForm = /^(?:[A-Za-z0-9._~!$&'()*+,;=:@/?[\]{}|^`-]|%[0-9A-Fa-f]{2})*$/
/** `/`, `\`, `.`, `;`, `%`, `?`, `#`: a reader that decodes first, or twice, would find another structure. */
const encodedStructure = /%(?:2f|5c|2e|3b|25|3f|23)/i
/** RFC 3986 section 6.2.2.2: `%61` is `a`, so a rule about the raw path would miss it. */
const encodedUnreserved = /%(?:2d|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])/i
const encodedNul = /%00/

function findPathProblem(path: string): string | undefined {
  if (!pathForm.test(path)) return 'target: a character or percent sign that a path may not have'
  if (path.includes('//')) return 'target: an empty segment'
  if (encodedStructure.test(path)) return 'target: an encoded delimiter'
  if (encodedUnreserved.test(path)) return 'target: an encoded letter, digit or mark'
  for (const segment of path.split('/')) {
    const problem = findSegmentProblem(segment)
    if (problem !== undefined) return problem
  }
  return undefined
}

function findSegmentProblem(segment: string): string | undefined {
  if (segment === '.' || segment === '..') return 'target: a dot segment'
  if (!segment.includes('%')) return undefined
  const decoded = decodeOnce(segment)
  if (decoded === undefined) return 'target: not UTF-8 when decoded'
  if (/\p{Cc}/u.test(decoded)) return 'target: an encoded control character'
  // Fullwidth slashes and dot leaders become real ones in readers that normalise text.
  const folded = decoded.normalize('NFKC')
  if (/[/\\]/.test(folded) || folded === '.' || folded === '..') {
    return 'target: a character that folds to a delimiter'
  }
  return undefined
}

function findQueryProblem(query: string | undefined): string | undefined {
  if (query === undefined) return undefined
  if (!queryForm.test(query)) return 'target: a character or percent sign that a query may not have'
  return encodedNul.test(query) ? 'target: an encoded NUL' : undefined
}

function decodeOnce(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment)
  } catch {
    return undefined
  }
}

function refused(detail: string): Target {
  return { ok: false, detail }
}
