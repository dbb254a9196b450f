import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { Config, ListenTlsConfig } from '../../config/schema.ts'
import { Exchanges } from '../../proxy/exchanges.ts'
import { gate } from '../../proxy/gate.ts'
import { takesTrailers } from '../../proxy/agent-side.ts'
import { hasBody } from '../../proxy/describe.ts'
import { forward, type ForwardOutcome } from '../../proxy/forward.ts'
import { inboundResponseHeaders, outboundHeaders } from '../../proxy/headers.ts'
import { createListener } from '../../proxy/listener.ts'
import { refuseArrival } from '../../proxy/refuse-arrival.ts'
import { requestTrailers } from '../../proxy/request-trailers.ts'
import type { ResponseFilter } from '../../proxy/response-filter.ts'
import type { Arrival } from '../../proxy/arrival.ts'
import { denialOfCut } from '../../proxy/denial.ts'
import { parseTarget } from '../../proxy/target.ts'
import { systemClock } from '../../proxy/system-clock.ts'
import { upgrade } from '../../proxy/upgrade.ts'
import { createUpstreamClient } from '../../proxy/upstream-client.ts'
import { deny } from '../../policy/denial.ts'
import type { Denial } from '../../policy/types.ts'
import { grantChain } from '../../policy/grant.ts'
import { grant, http } from './decide-input.ts'

/** A peer over a raw socket: what it got so far, and how it ended. */
export interface Peer {
  readonly socket: Socket
  /** The first of it, as Latin-1. */
  text(): string
  bytes(): number
  /** Resolves once the text holds this. */
  has(text: string): Promise<string>
  readonly ended: Promise<'fin' | 'reset'>
}

export interface Relay extends AsyncDisposable {
  /** Of the agents' listener. */
  readonly port: number
  /** Connects an agent and sends this. */
  agent(text: string): Peer
  /** The next connection that the upstream took. */
  upstreamPeer(): Promise<Peer>
  /** How each exchange ended, in order. */
  readonly outcomes: readonly ForwardOutcome[]
  ended(count: number): Promise<readonly ForwardOutcome[]>
  readonly exchanges: Exchanges
  readonly upstreamConnections: () => number
  /** How many heads of answers came from the upstream, and how many agent sides have closed: what no peer can see. */
  readonly answerHeads: () => number
  readonly agentSidesClosed: () => number
}

export interface RelayOptions {
  readonly filter?: ResponseFilter
  readonly body?: Buffer
  readonly hasCredential?: boolean
  readonly protocol?: 'http1' | 'http2'
  /** An upstream of the test's own, in place of the one that it plays byte by byte. */
  readonly upstreamUrl?: string
  readonly maxConnections?: number
  readonly bodyGapTimeoutMs?: number
  readonly headersTimeoutMs?: number
  /** Refuses first what has more than one reading, as the first step does. */
  readonly gated?: boolean
  /** In place of those of the other tests. */
  readonly limits?: Partial<Config['limits']>
  /** Of the agents' listener. Absent: clear text. */
  readonly tls?: ListenTlsConfig
  /** Runs before the request is forwarded, as the steps before do. */
  readonly before?: () => Promise<void>
}

export const limits: Config['limits'] = {
  maxHeadBytes: 16_384,
  headTimeout: 10_000,
  bodyGapTimeout: 10_000,
  answerGapTimeout: 10_000,
  maxConnections: 64,
  maxExchanges: 64,
  maxMcpBytes: 65_536,
  maxMcpDepth: 16,
}

/** The agents' listener, `forward()` or `upgrade()`, and an upstream that the test plays byte by byte. */
export async function startRelay(options: RelayOptions = {}): Promise<Relay> {
  const upstream = await startRawUpstream()
  const exchanges = new Exchanges({ clock: systemClock })
  const client = createUpstreamClient({
    config: {
      name: 'api',
      url: options.upstreamUrl ?? upstream.url,
      kind: 'rest',
      protocol: options.protocol ?? 'http1',
      sensitivity: 'internal',
      credential: { none: true },
      allowPrivateAddresses: true,
      unsafeAllowSetCookie: false,
      connectTimeout: 5_000,
      headersTimeout: options.headersTimeoutMs ?? 10_000,
      maxConnections: options.maxConnections ?? 16,
    },
    ca: undefined,
  })
  const outcomes: ForwardOutcome[] = []
  let answerHeads = 0
  const answered = (): void => void answerHeads++
  let agentSidesClosed = 0
  const listener = createListener({
    limits: { ...limits, ...options.limits },
    ...(options.tls && { tls: options.tls }),
    clock: systemClock,
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
    async handle(arrival) {
      const refusal = options.gated === true ? firstStep(arrival) : undefined
      if (refusal) {
        refuseArrival(arrival, refusal, { decisionId: 'd1', txn: undefined, message: undefined })
        return
      }
      using exchange = exchanges.track({
        chain: grantChain(grant()),
        operation: http('GET'),
        upstreamName: 'api',
      })
      const agentSide = arrival.upgrade?.socket ?? arrival.res
      agentSide.once('close', () => void agentSidesClosed++)
      await options.before?.()
      outcomes.push(await relay(arrival, { options, client, exchange, answered }))
    },
  })
  const { port } = new URL(await listener.listen('127.0.0.1:0'))
  const peers: Peer[] = []
  return {
    port: Number(port),
    agent(text) {
      const peer = watch(connect(Number(port), '127.0.0.1'))
      peers.push(peer)
      peer.socket.write(text, 'latin1')
      return peer
    },
    upstreamPeer: upstream.next,
    upstreamConnections: upstream.count,
    answerHeads: () => answerHeads,
    agentSidesClosed: () => agentSidesClosed,
    outcomes,
    async ended(count) {
      await until(() => outcomes.length >= count)
      return outcomes
    },
    exchanges,
    async [Symbol.asyncDispose]() {
      for (const { socket } of peers) socket.destroy()
      await listener[Symbol.asyncDispose]()
      await client.dispatcher.destroy()
      await upstream.close()
    },
  }
}

function firstStep({ req }: Arrival): Denial | undefined {
  const denial = gate(req)
  if (denial) return denial
  const target = parseTarget(req.url ?? '')
  return target.ok ? undefined : deny('request-refused', target.detail)
}

function relay(
  arrival: Arrival,
  context: {
    readonly options: RelayOptions
    readonly client: ReturnType<typeof createUpstreamClient>
    readonly exchange: ReturnType<Exchanges['track']>
    readonly answered: () => void
  },
): Promise<ForwardOutcome> {
  const { req, res, upgrade: upgraded } = arrival
  const { options, client, exchange, answered } = context
  const headers = outboundHeaders(req.rawHeaders, {
    host: 'upstream.example',
    slots: [],
    injected: [],
    stripAcceptEncoding: false,
    upgrade: upgraded !== undefined,
    trailers: options.protocol === 'http2' && takesTrailers(req),
  })
  const shared = {
    client,
    target: req.url ?? '',
    headers,
    exchange,
    responseHeaders: (raw: readonly string[]) => {
      answered()
      return inboundResponseHeaders(raw, { allowSetCookie: false })
    },
    refusePending: (
      ...[cut, denial]: Parameters<Parameters<typeof upgrade>[0]['refusePending']>
    ) => {
      const context_ = { decisionId: 'd1', txn: 'task-1', message: undefined }
      refuseArrival(arrival, cut ? denialOfCut(cut) : denial, context_)
    },
  }
  if (upgraded) {
    const key = req.headers['sec-websocket-key'] ?? ''
    return upgrade({ ...shared, ...upgraded, key })
  }
  return forward(req, res, {
    ...shared,
    requestTrailers: (raw) =>
      requestTrailers(raw, { rawHeaders: req.rawHeaders, slots: ['x-injected'] }),
    method: req.method ?? '',
    body: options.body ?? (hasBody(req) ? 'stream' : 'none'),
    filter: options.filter,
    hasCredential: options.hasCredential ?? false,
    bodyGapTimeoutMs: options.bodyGapTimeoutMs ?? 10_000,
  })
}

/** An upstream that the test plays byte by byte. */
export async function startRawUpstream() {
  const peers: Peer[] = []
  const waiting: ((peer: Peer) => void)[] = []
  let count = 0
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    count += 1
    const peer = watch(socket)
    const take = waiting.shift()
    if (take) take(peer)
    else peers.push(peer)
    all.add(socket)
  })
  const all = new Set<Socket>()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('Expected a TCP address')
  return {
    url: `http://127.0.0.1:${address.port}`,
    count: () => count,
    next: (): Promise<Peer> => {
      const peer = peers.shift()
      return peer
        ? Promise.resolve(peer)
        : within(new Promise((resolve) => waiting.push(resolve)), 'no connection came')
    },
    async close() {
      for (const socket of all) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Follows what comes on a socket, and how it ends. */
export function watch(socket: Socket): Peer {
  let text = ''
  let bytes = 0
  const ended = Promise.withResolvers<'fin' | 'reset'>()
  socket.on('data', (chunk) => {
    bytes += chunk.length
    if (text.length < maxText) text += chunk.toString('latin1')
  })
  socket.on('end', () => ended.resolve('fin'))
  socket.on('error', () => ended.resolve('reset'))
  socket.on('close', (hadError) => ended.resolve(hadError ? 'reset' : 'fin'))
  return {
    socket,
    text: () => text,
    bytes: () => bytes,
    async has(wanted) {
      await until(
        () => text.includes(wanted),
        () => `${JSON.stringify(wanted)} in ${JSON.stringify(text.slice(0, 500))}`,
      )
      return text
    },
    ended: ended.promise,
  }
}

const maxText = 1_000_000
const deadlineMs = 30_000

/** Polls to a deadline: the only wait in these tests. */
export async function until(
  holds: () => boolean,
  what: () => string = () => 'a condition',
): Promise<void> {
  const deadline = performance.now() + deadlineMs
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`Expected ${what()} within ${deadlineMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

function within<T>(promise: Promise<T>, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(what)), deadlineMs)
    timer.unref()
    promise.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
