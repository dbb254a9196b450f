import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'

/**
 * The one bearer token of a request, from the fields as they came: the runtime's own map joins or drops repeated ones,
 * and two parties could each see another credential.
 */
export function bearerToken(rawHeaders: readonly string[]): { readonly token: string } | Denial {
  const [value, ...more] = authorizations(rawHeaders)
  if (value === undefined) return deny('identity-required', 'no Authorization field')
  if (more.length > 0) return deny('credential-ambiguous', 'more than one Authorization field')
  const space = value.indexOf(' ')
  const scheme = space === -1 ? value : value.slice(0, space)
  if (scheme.toLowerCase() !== 'bearer') {
    return deny('identity-required', 'the Authorization scheme is not Bearer')
  }
  // RFC 6750 section 2.1: one or more spaces. What the token may hold is for its own parser to say.
  const token = /^ +([\x21-\x7e]+)$/.exec(value.slice(scheme.length))?.[1]
  return token === undefined
    ? deny('identity-invalid', 'the Authorization field holds no single token')
    : { token }
}

/** `rawHeaders` alternates names and values. */
function authorizations(rawHeaders: readonly string[]): string[] {
  const found: string[] = []
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    if (rawHeaders[index]?.toLowerCase() === 'authorization')
      found.push(rawHeaders[index + 1] ?? '')
  }
  return found
}
