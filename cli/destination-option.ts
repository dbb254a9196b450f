import type { GrantClaims } from '../policy/grant.ts'

type Entry = GrantClaims['authorization_details'][number]

/** Reads `--allow`; undefined when the text is none of its three forms. What it names is judged when the grant is verified. */
export function destinationOf(text: string): Entry | undefined {
  const [kind = '', url = '', tools, ...more] = text.trim().split(/\s+/)
  if (more.length > 0) return undefined
  if (kind === 'mcp')
    return tools === undefined
      ? undefined
      : { type: 'mcp_server', locations: [url], tools: tools.split(',') }
  if (tools !== undefined) return undefined
  const at = splitUrl(url)
  if (!at) return undefined
  if (kind === 'ws') return { type: 'ws', locations: [at.origin], paths: [at.path] }
  if (!/^[A-Z]+(,[A-Z]+)*$/.test(kind)) return undefined
  return { type: 'http_api', locations: [at.origin], actions: kind.split(','), paths: [at.path] }
}

/** By text: a URL parser would encode or resolve what stands in a pattern. */
function splitUrl(url: string): { readonly origin: string; readonly path: string } | undefined {
  const match = /^([a-z]+:\/\/[^/]+)(\/.*)$/.exec(url)
  const [, origin, path] = match ?? []
  return origin === undefined || path === undefined ? undefined : { origin, path }
}
