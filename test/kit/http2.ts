import { once } from 'node:events'
import {
  connect,
  constants,
  createServer,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import { createServer as createTcpServer, type Socket } from 'node:net'
import { followFrames, frame, type FramePeer } from './http2-frames.ts'
import { until } from './relay.ts'

/** An agent on one HTTP/2 connection. */
export interface Http2Agent extends AsyncDisposable {
  readonly session: ClientHttp2Session
  /** Sends a request; a body is left to the caller unless `endStream`. */
  ask(headers: OutgoingHttpHeaders, options?: { readonly endStream?: boolean }): Asked
}

/** One stream as its client sees it. */
export interface Asked {
  readonly stream: ClientHttp2Stream
  /** Pseudo-header and other fields of the answer; `endStream` when it ended with its head. */
  readonly head: Promise<{ readonly fields: IncomingHttpHeaders; readonly endStream: boolean }>
  text(): string
  /** Resolves once the text holds this. */
  has(wanted: string): Promise<string>
  trailers(): IncomingHttpHeaders | undefined
  /** The code that the stream was closed with. */
  readonly closed: Promise<number>
}

export function openAgent(port: number): Http2Agent {
  const session = connect(`http://127.0.0.1:${port}`)
  session.on('error', () => undefined)
  return {
    session,
    ask: (headers, { endStream = true } = {}) =>
      followStream(session.request({ ':path': '/a', ...headers }, { endStream })),
    async [Symbol.asyncDispose]() {
      session.destroy()
    },
  }
}

function followStream(stream: ClientHttp2Stream): Asked {
  let text = ''
  let trailers: IncomingHttpHeaders | undefined
  const head = Promise.withResolvers<Awaited<Asked['head']>>()
  const closed = Promise.withResolvers<number>()
  head.promise.catch(() => undefined)
  stream.on('response', (fields, flags) =>
    head.resolve({ fields, endStream: (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0 }),
  )
  stream.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  stream.on('trailers', (fields) => {
    trailers = fields
  })
  stream.on('error', () => undefined)
  stream.on('close', () => {
    head.reject(new Error(`The stream was closed with code ${stream.rstCode} before its head`))
    closed.resolve(stream.rstCode ?? 0)
  })
  return {
    stream,
    head: head.promise,
    text: () => text,
    async has(wanted) {
      await until(
        () => text.includes(wanted),
        () => `${JSON.stringify(wanted)} in ${JSON.stringify(text.slice(0, 500))}`,
      )
      return text
    },
    trailers: () => trailers,
    closed: closed.promise,
  }
}

/** A stream that an upstream got. */
export interface Served {
  readonly stream: ServerHttp2Stream
  readonly fields: IncomingHttpHeaders
  readonly raw: readonly string[]
  text(): string
  has(wanted: string): Promise<string>
  /** The code that the stream was closed with. */
  readonly closed: Promise<number>
  trailers(): IncomingHttpHeaders | undefined
  /** Resolves once all of the request is there. */
  readonly whole: Promise<void>
  /** Whether its client ended it before it was closed. */
  isAborted(): boolean
}

export interface Http2Upstream extends AsyncDisposable {
  readonly url: string
  readonly streams: readonly Served[]
  readonly sessions: readonly ServerHttp2Session[]
  /** The next stream that came. */
  next(): Promise<Served>
}

/** An upstream whose streams the test answers, in clear text. */
export async function startHttp2Upstream(
  settings: { readonly maxConcurrentStreams?: number } = {},
): Promise<Http2Upstream> {
  const server = createServer({ settings })
  const streams: Served[] = []
  const sessions: ServerHttp2Session[] = []
  let taken = 0
  server.on('session', (session) => {
    session.on('error', () => undefined)
    sessions.push(session)
  })
  server.on('stream', (stream, fields, _flags, raw) => {
    streams.push(serve(stream, { fields, raw }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: urlOf(server.address()),
    streams,
    sessions,
    async next() {
      await until(() => streams.length > taken)
      const served = streams[taken]
      if (!served) throw new Error('Expected a stream')
      taken += 1
      return served
    },
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy()
      server.close()
    },
  }
}

function serve(
  stream: ServerHttp2Stream,
  { fields, raw }: { readonly fields: IncomingHttpHeaders; readonly raw: readonly string[] },
): Served {
  let text = ''
  let isAborted = false
  let trailers: IncomingHttpHeaders | undefined
  const closed = Promise.withResolvers<number>()
  const whole = Promise.withResolvers<void>()
  stream.on('trailers', (given) => {
    trailers = Object.fromEntries(Object.entries(given))
  })
  stream.on('end', () => whole.resolve())
  stream.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  stream.on('aborted', () => {
    isAborted = true
  })
  stream.on('error', () => undefined)
  stream.on('close', () => closed.resolve(stream.rstCode ?? 0))
  return {
    stream,
    fields,
    raw,
    text: () => text,
    async has(wanted) {
      await until(() => text.includes(wanted))
      return text
    },
    closed: closed.promise,
    trailers: () => trailers,
    whole: whole.promise,
    isAborted: () => isAborted,
  }
}

/** An upstream of HTTP/2 that is written frame by frame. It has said its SETTINGS. */
export async function startFrameUpstream(): Promise<
  { readonly url: string; next(): Promise<FramePeer> } & AsyncDisposable
> {
  const peers: FramePeer[] = []
  const sockets: Socket[] = []
  let taken = 0
  const server = createTcpServer((socket) => {
    sockets.push(socket)
    const peer = followFrames(socket)
    peer.send(frame('settings'))
    peers.push(peer)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: urlOf(server.address()),
    async next() {
      await until(() => peers.length > taken)
      const peer = peers[taken]
      if (!peer) throw new Error('Expected a connection')
      taken += 1
      return peer
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

function urlOf(address: ReturnType<ReturnType<typeof createTcpServer>['address']>): string {
  if (address === null || typeof address === 'string') throw new Error('Expected a TCP address')
  return `http://127.0.0.1:${address.port}`
}
