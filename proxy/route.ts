import { isIP, isIPv4 } from 'node:net'
import type { Config, RouteConfig } from '../config/schema.ts'
import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import { parseTarget } from './target.ts'

/** The closed table of where requests may go. Longest prefix first. */
export interface RouteTable {
  readonly byHost: ReadonlyMap<string, CompiledRoute>
  readonly byPrefix: readonly CompiledRoute[]
  /** Whether Host may be any IP address: the listener is not bound to loopback. */
  readonly anyAddress: boolean
}

export interface RouteMatch {
  readonly route: Route
  /** Raw path at the upstream: its base path, then what follows the prefix. Never empty. */
  readonly upstreamPath: string
  /** The task that a `/t/<txn>` prefix names. */
  readonly txn: string | undefined
}

interface Route {
  /** The prefix or the host, as configured: bounded, so fit for a metric label. */
  readonly name: string
  readonly upstreamName: string
  /** Epoch milliseconds: `unsafeObserveUntil` of the configuration. */
  readonly unsafeObserveUntilMs?: number
}

interface CompiledRoute extends Route {
  /** Path of the upstream's URL without a trailing slash; may be empty. */
  readonly basePath: string
}

/** A route cannot be used. The message names which. */
export class RouteError extends Error {
  override readonly name = 'RouteError'
  readonly code = 'ERR_ROUTE_INVALID'
}

/** Compiles the routes of a configuration. Throws `RouteError` when two are the same or one names no upstream. */
export function compileRoutes(config: Config): RouteTable {
  const basePaths = new Map(config.upstreams.map(({ name, url }) => [name, basePathOf(url)]))
  const byHost = new Map<string, CompiledRoute>()
  const byPrefix = new Map<string, CompiledRoute>()
  for (const route of config.routes) {
    const compiled = compileRoute(route, basePaths)
    const table = 'host' in route ? byHost : byPrefix
    if (table.has(compiled.name)) throw new RouteError(`Route "${compiled.name}" stands twice`)
    table.set(compiled.name, compiled)
  }
  return {
    byHost,
    byPrefix: [...byPrefix.values()].toSorted((a, b) => b.name.length - a.name.length),
    anyAddress: config.listen.unsafeNonLoopback,
  }
}

/**
 * Finds the upstream of a request. `path` is one that `parseTarget()` accepted. `/t/<txn>` comes off first; then an exact
 * Host wins, then the longest prefix that ends at a segment boundary.
 */
export function matchRoute(
  table: RouteTable,
  { host, path }: { readonly host: string; readonly path: string },
): RouteMatch | Denial {
  const task = takeTask(path)
  if (!task) return deny('request-refused', 'route: the task prefix is malformed')
  const authority = host.toLowerCase()
  const named = table.byHost.get(authority)
  if (named) return toMatch(named, task)
  // A page in a browser can point its own name at 127.0.0.1 and send what it likes: only names that cannot be its own.
  if (!isOwnAuthority(authority, table)) return deny('request-refused', 'route: Host is not ours')
  const route = table.byPrefix.find(({ name }) => isWithin(task.rest, name))
  if (!route) return deny('request-refused', 'route: no route of this path')
  return toMatch(route, { txn: task.txn, rest: task.rest.slice(route.name.length) })
}

/** A task's name as it may stand in a path or a field: unreserved characters only, so it needs no decoding. */
export function isTxn(text: string): boolean {
  return txnForm.test(text)
}

const txnForm = /^(?!\.+$)[A-Za-z0-9._~-]{1,128}$/
const taskPrefix = '/t/'

interface TaskPath {
  readonly txn: string | undefined
  /** Empty, or starts with `/`. */
  readonly rest: string
}

function takeTask(path: string): TaskPath | undefined {
  if (!path.startsWith(taskPrefix)) return { txn: undefined, rest: path }
  const slash = path.indexOf('/', taskPrefix.length)
  const end = slash === -1 ? path.length : slash
  const txn = path.slice(taskPrefix.length, end)
  return isTxn(txn) ? { txn, rest: path.slice(end) } : undefined
}

function toMatch(route: CompiledRoute, { txn, rest }: TaskPath): RouteMatch {
  return { route, upstreamPath: `${route.basePath}${rest}` || '/', txn }
}

function isWithin(path: string, prefix: string): boolean {
  return path.startsWith(prefix) && (path.length === prefix.length || path[prefix.length] === '/')
}

function isOwnAuthority(authority: string, { anyAddress }: RouteTable): boolean {
  const host = authority.replace(/:\d{1,5}$/, '')
  if (host === 'localhost' || host.endsWith('.localhost')) return true
  const address = host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
  if (anyAddress && isIP(address) !== 0) return true
  return address === '::1' || (isIPv4(host) && host.startsWith('127.'))
}

function compileRoute(route: RouteConfig, basePaths: ReadonlyMap<string, string>): CompiledRoute {
  const name = 'host' in route ? route.host : route.prefix
  if (name === '/t' || name.startsWith(taskPrefix)) {
    throw new RouteError(`Route "${name}": "/t" is kept for tasks`)
  }
  const basePath = basePaths.get(route.upstream)
  if (basePath === undefined) {
    throw new RouteError(`Route "${name}": no upstream has the name "${route.upstream}"`)
  }
  const { upstream: upstreamName, unsafeObserveUntil: unsafeObserveUntilMs } = route
  return {
    name,
    upstreamName,
    basePath,
    ...(unsafeObserveUntilMs !== undefined && { unsafeObserveUntilMs }),
  }
}

function basePathOf(url: string): string {
  const { pathname } = new URL(url)
  const target = parseTarget(pathname)
  if (!target.ok) throw new RouteError(`Upstream URL: ${target.detail}`)
  return pathname.endsWith('/') ? pathname.slice(0, -1) : pathname
}
