import { coversOrigin, httpOriginOf } from './location.ts'
import { matchesPath } from './path-pattern.ts'
import type {
  ArgumentConstraint,
  Destination,
  Grant,
  McpMessage,
  Operation,
  Upstream,
} from './types.ts'

/** A request as destinations see it: what is asked, of the host that will be dialled, never of the Host field. */
export interface Target {
  readonly operation: Operation
  readonly upstream: Upstream
}

/** Whether one of the grant's destinations allows the request. Says nothing of time, purpose or sensitivity. */
export function grantAllows(grant: Grant, target: Target): boolean {
  return grant.destinations.some((destination) => matchesDestination(destination, target))
}

/** Whether the request matches in every member of the entry. An empty list matches nothing. */
export function matchesDestination(destination: Destination, target: Target): boolean {
  if (destination.type === 'http_api') return matchesHttpApi(destination, target)
  if (destination.type === 'mcp_server') return matchesMcpServer(destination, target)
  return matchesWebSocket(destination, target)
}

/** Whether each location of the entry lies within one of the ceilings, all in canonical form. */
export function isWithinLocations(destination: Destination, ceilings: readonly string[]): boolean {
  return destination.locations.every((location) =>
    ceilings.some(
      (ceiling) => ceiling === location || coversOrigin(ceiling, httpOriginOf(location)),
    ),
  )
}

type Entry<T extends Destination['type']> = Extract<Destination, { type: T }>

function matchesHttpApi(entry: Entry<'http_api'>, { operation, upstream }: Target): boolean {
  return (
    operation.kind === 'http' &&
    entry.locations.some((location) => coversOrigin(location, upstream.origin)) &&
    entry.actions.includes(operation.method) &&
    !(entry.query === 'deny' && operation.hasQuery) &&
    entry.paths.some((pattern) => matchesPath(pattern, operation.path))
  )
}

function matchesWebSocket(entry: Entry<'ws'>, { operation, upstream }: Target): boolean {
  return (
    operation.kind === 'websocket' &&
    entry.locations.some((location) => coversOrigin(httpOriginOf(location), upstream.origin)) &&
    entry.paths.some((pattern) => matchesPath(pattern, operation.path))
  )
}

/**
 * The location is a whole URL, so a query, which the entry cannot name, does not match. A tool call needs its tool;
 * everything else of the protocol, with the GET and DELETE of its stream and session, needs only the server.
 */
function matchesMcpServer(entry: Entry<'mcp_server'>, { operation, upstream }: Target): boolean {
  if (upstream.kind !== 'mcp' || operation.hasQuery) return false
  if (!entry.locations.includes(upstream.origin + operation.path)) return false
  if (operation.kind === 'http') return operation.method === 'GET' || operation.method === 'DELETE'
  if (operation.kind === 'websocket') return false
  return operation.message.type !== 'tools/call' || matchesToolCall(entry, operation.message)
}

function matchesToolCall(
  { tools, args = {} }: Entry<'mcp_server'>,
  message: Extract<McpMessage, { type: 'tools/call' }>,
): boolean {
  return (
    tools.some((pattern) => matchesTool(pattern, message.tool)) &&
    Object.entries(args).every(([name, constraint]) =>
      matchesArgument(constraint, message.args.get(pointerOf(name))),
    )
  )
}

/** Exact, or with one `*` at the end. */
function matchesTool(pattern: string, tool: string): boolean {
  return pattern.endsWith('*') ? tool.startsWith(pattern.slice(0, -1)) : pattern === tool
}

/** RFC 6901: escaped, so that the constraint on `a/b` never reads the member `b` of the argument `a`. */
function pointerOf(name: string): string {
  return name.replaceAll('~', '~0').replaceAll('/', '~1')
}

/** An argument that is missing, or not a scalar, has no value here and does not match. */
function matchesArgument(
  constraint: ArgumentConstraint,
  value: string | number | boolean | null | undefined,
): boolean {
  if (value === undefined || value === null) return false
  const { prefix, max } = constraint
  if (constraint.enum && !constraint.enum.includes(value)) return false
  if (prefix !== undefined && !(typeof value === 'string' && value.startsWith(prefix))) return false
  return max === undefined || (typeof value === 'number' && value <= max)
}
