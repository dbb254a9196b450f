import type { Credential } from '../credential/issuer.ts'
import { isDenial } from '../policy/denial.ts'
import { allowsTool } from '../policy/decide.ts'
import { takesTrailers } from './agent-side.ts'
import type { Arrival } from './arrival.ts'
import type { AuditEntry } from './audit-entry.ts'
import { denialOfCut } from './denial.ts'
import type { Described } from './describe.ts'
import type { Cut, Exchange } from './exchange.ts'
import { forward, type ForwardOutcome } from './forward.ts'
import { isGrpc } from './grpc.ts'
import { inboundResponseHeaders, outboundHeaders, outboundQuery } from './headers.ts'
import { createMcpResponseFilter } from './mcp/response-filter.ts'
import { observedUntilMs } from './observed-only.ts'
import { requestTrailers } from './request-trailers.ts'
import type { ResponseFilter } from './response-filter.ts'
import type { Routed } from './route-arrival.ts'
import type { Sidecar } from './sidecar.ts'
import type { Snapshot } from './snapshot.ts'
import type { Task } from './task-resolver.ts'
import { upgrade } from './upgrade.ts'
import type { Agent, Denial } from '../policy/types.ts'

/** What the earlier steps established. */
export interface Admitted {
  readonly sidecar: Sidecar
  readonly snapshot: Snapshot
  readonly entry: AuditEntry
  readonly route: Routed
  readonly agent: Agent
  readonly task: Task
  readonly described: Described
  readonly exchange: Exchange
  readonly credential: Credential
}

/** Sends the admitted request to its upstream, with the task's credential in place of the agent's. */
export async function send(arrival: Arrival, admitted: Admitted): Promise<ForwardOutcome> {
  const { req, res } = arrival
  const { route, described, exchange, credential, entry, snapshot } = admitted
  const { upstream } = route
  const slots = upstream.issuer.slots
  const injected = credential.slots()

  const query = outboundQuery(route.query, { slots: slots.query, injected: injected.query })
  if (isDenial(query)) {
    entry.refuseNow(query)
    return { status: res.statusCode, end: 'denied', error: query.code }
  }
  const target = query.query === undefined ? route.path : `${route.path}?${query.query}`
  const headers = outboundHeaders(req.rawHeaders, {
    host: upstream.authority,
    slots: slots.headers,
    injected: injected.headers,
    // An encoded answer cannot be looked into (tools/list) nor ended with a final message.
    stripAcceptEncoding: upstream.facts.kind === 'mcp',
    upgrade: arrival.upgrade !== undefined,
    trailers: upstream.config.protocol === 'http2' && takesTrailers(req),
  })
  const responseHeaders = (raw: readonly string[]): string[] =>
    inboundResponseHeaders(raw, { allowSetCookie: upstream.config.unsafeAllowSetCookie })
  const refusePending = (cut: Cut | undefined, denial: Denial): void =>
    entry.refuseNow(cut ? denialOfCut(cut) : denial)

  if (arrival.upgrade) {
    const key = req.headers['sec-websocket-key'] ?? ''
    const { client } = upstream
    return upgrade({
      client,
      target,
      headers,
      exchange,
      ...arrival.upgrade,
      key,
      responseHeaders,
      refusePending,
    })
  }
  return forward(req, res, {
    client: upstream.client,
    method: req.method ?? '',
    target,
    headers,
    body: described.body,
    exchange,
    requestTrailers: (raw) =>
      requestTrailers(raw, {
        rawHeaders: req.rawHeaders,
        slots: [...slots.headers, ...injected.headers.map(([name]) => name)],
      }),
    responseHeaders,
    filter: responseFilter(admitted),
    hasCredential: upstream.issuer.kind !== 'none',
    refusePending,
    // A call that streams may be silent for as long as it likes: what ends it is the cut.
    bodyGapTimeoutMs: isGrpc(req) ? undefined : snapshot.config.limits.bodyGapTimeout,
  })
}

/** MCP answers are looked at: lists show only what this task may call, and a cut call gets its final message. */
function responseFilter(admitted: Admitted): ResponseFilter | undefined {
  const { operation } = admitted.described
  if (operation.kind !== 'mcp') return undefined
  const { agent, task, route, snapshot, sidecar, entry } = admitted
  return createMcpResponseFilter({
    message: operation.message,
    allowTool: (tool) =>
      allowsTool({
        agent,
        chain: task.chain,
        operation,
        tool,
        upstream: route.upstream.facts,
        engine: snapshot.engine,
        view: sidecar.feed.view,
        nowMs: sidecar.clock.now(),
        unsafeObserveUntilMs: observedUntilMs(snapshot.config, { route, chain: task.chain }),
      }),
    decisionId: entry.decisionId,
    txn: task.chain.leaf.txn,
    maxBytes: maxListBytes,
  })
}

/** A tools/list answer of more bytes is refused: it is filtered whole or not at all. */
const maxListBytes = 4 * 1024 * 1024
