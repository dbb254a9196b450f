import type { AgentRequest, AgentResponse } from './arrival.ts'

/** More interim answers than any upstream has reason to send. */
export const maxInterim = 16

/** Passes the links of a 103 (RFC 8297) and nothing else of it: the final head has the rest. */
export function sendEarlyHints(
  res: AgentResponse,
  { req, headers }: { readonly req: AgentRequest; readonly headers: readonly string[] },
): void {
  // RFC 9110 section 15.2: no interim answer to an HTTP/1.0 client.
  if (req.httpVersion === '1.0') return
  const link = [...hintedLinks(headers)]
  if (link.length > 0) res.writeEarlyHints({ link })
}

/** `Link` values of a 103 that name nothing but a target and plain parameters: Node refuses to send others. */
function hintedLinks(headers: readonly string[]): readonly string[] {
  const links: string[] = []
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const value = headers[index + 1] ?? ''
    if (headers[index]?.toLowerCase() === 'link') links.push(...value.split(/,(?=\s*<)/))
  }
  return links.map((link) => link.trim()).filter((link) => linkForm.test(link))
}

const linkForm =
  /^<[^<>"\s]{1,2048}>(?:; ?[a-z*-]{1,32}(?:=(?:[\w/.-]{1,128}|"[\w/. -]{0,128}"))?){0,8}$/i
