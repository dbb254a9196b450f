import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Dispatcher } from 'undici'
import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import type { Cut, CutHow, Exchange } from './exchange.ts'
import { rawFields, type ForwardOutcome } from './forward.ts'
import type { UpstreamClient } from './upstream-client.ts'
import { closeFrame, WebSocketFrames } from './websocket-frames.ts'

/** Refuses an upgrade that is not one whole WebSocket handshake (RFC 6455 section 4.2.1). */
export function checkHandshake({ method, headers }: IncomingMessage): Denial | undefined {
  if (method !== 'GET') return wrong('the method is not GET')
  if (headers.upgrade?.toLowerCase() !== 'websocket') return wrong('not to websocket')
  if (headers['sec-websocket-version'] !== '13') return wrong('the version is not 13')
  if (!/^[A-Za-z0-9+/]{21}[AQgw]==$/.test(headers['sec-websocket-key'] ?? '')) {
    return wrong('the key is not 16 bytes')
  }
  const length = headers['content-length']
  if (headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0')) {
    return wrong('it has a body')
  }
  return undefined
}

function wrong(detail: string): Denial {
  return deny('request-refused', `upgrade: ${detail}`)
}

export interface UpgradeOptions {
  readonly client: UpstreamClient
  readonly target: string
  /** Flat; without Connection and Upgrade. */
  readonly headers: string[]
  readonly exchange: Exchange
  readonly socket: Socket
  /** What the agent sent behind its handshake. */
  readonly head: Buffer
  readonly res: ServerResponse
  /** `Sec-WebSocket-Key` of the agent. */
  readonly key: string
  responseHeaders(raw: readonly string[] | readonly Buffer[]): string[]
  /** Answers in the agent's dialect, before the upgrade was done. */
  refusePending(cut: Cut | undefined, denial: Denial): void
}

/** Asks the upstream for the same WebSocket and joins the two sockets until either ends or the exchange is cut. */
export function upgrade(options: UpgradeOptions): Promise<ForwardOutcome> {
  return new Promise((resolve) => {
    const upgrading = new Upgrading(options, resolve)
    // The agent may have left while its request was judged: no event would tell of it any more.
    if (options.socket.closed) return upgrading.closed()
    options.exchange.attach(upgrading)
    if (!options.exchange.cut) upgrading.dispatch()
  })
}

/** How long a close frame may take to be answered before the connection is reset. */
const closeMs = 500

class Upgrading implements Dispatcher.DispatchHandler {
  readonly #options: UpgradeOptions
  readonly #resolve: (outcome: ForwardOutcome) => void
  readonly #frames = new WebSocketFrames()
  #controller: Dispatcher.DispatchController | undefined
  #upstream: Duplex | undefined
  #refused: string | undefined
  #failure: string | undefined

  constructor(options: UpgradeOptions, resolve: (outcome: ForwardOutcome) => void) {
    this.#options = options
    this.#resolve = resolve
    options.socket.once('close', () => this.closed())
    options.socket.on('error', () => undefined)
  }

  dispatch(): void {
    const { client, target, headers, socket } = this.#options
    socket.on('end', this.#leftEarly)
    client.dispatcher.dispatch({ path: target, method: 'GET', headers, upgrade: 'websocket' }, this)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#isOver()) controller.abort(abortion)
  }

  onRequestUpgrade(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: Readonly<Record<string, unknown>>,
    upstream: Duplex,
  ): void {
    upstream.on('error', (error) => this.#upstreamFailed(error))
    if (this.#isOver()) return void upstream.destroy()
    const isAccepted =
      status === 101 && headers['sec-websocket-accept'] === acceptOf(this.#options.key)
    if (!isAccepted) {
      upstream.destroy()
      return this.#refuse(
        deny('upstream-unreachable', 'the upstream answered with a wrong handshake'),
      )
    }
    this.#upstream = upstream
    this.#sendSwitch(this.#options.responseHeaders(rawFields(controller)))
    this.#join(upstream)
  }

  /** Any other answer than 101. */
  onResponseStart(_controller: unknown, status: number): void {
    if (this.#isOver() || status < 200) return
    const code = status === 401 ? 'upstream-credential-rejected' : 'upstream-unreachable'
    this.#refuse(deny(code, `the upstream answered ${status} to the upgrade`))
  }

  onResponseError(_controller: unknown, error: Error): void {
    if (!this.#isOver()) this.#refuse(deny('upstream-unreachable', error.name))
  }

  cutClient(cut: Cut): CutHow {
    const { socket } = this.#options
    if (!this.#upstream) {
      this.#refused = cut.code
      this.#options.refusePending(cut, deny(cut.code, 'cut while in flight'))
      return 'denied'
    }
    if (this.#frames.atBoundary && socket.writableLength === 0) {
      socket.write(closeFrame(cut.code))
      socket.destroySoon()
      setTimeout(() => socket.resetAndDestroy(), closeMs).unref()
      return 'close-1008'
    }
    socket.resetAndDestroy()
    return 'reset'
  }

  cutUpstream(): void {
    if (this.#upstream) this.#upstream.destroy()
    else this.#controller?.abort(abortion)
  }

  /** An agent that ends its side before the switch waits for nothing any more. */
  readonly #leftEarly = (): void => {
    if (!this.#isOver()) this.#options.socket.destroy()
  }

  #isOver(): boolean {
    const { exchange, socket } = this.#options
    return this.#refused !== undefined || exchange.cut !== undefined || socket.destroyed
  }

  #refuse(denial: Denial): void {
    this.#refused = denial.code
    this.#options.refusePending(undefined, denial)
    this.#controller?.abort(abortion)
  }

  #sendSwitch(headers: readonly string[]): void {
    const { socket, res } = this.#options
    res.detachSocket(socket)
    let head = 'HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n'
    for (let index = 0; index + 1 < headers.length; index += 2) {
      head += `${headers[index]}: ${headers[index + 1]}\r\n`
    }
    socket.write(`${head}\r\n`, 'latin1')
  }

  #join(upstream: Duplex): void {
    const { socket, head, exchange } = this.#options
    const toUpstream = (chunk: Buffer): void => {
      if (exchange.cut) return
      exchange.bytesUp += chunk.length
      if (upstream.write(chunk)) return
      socket.pause()
      upstream.once('drain', () => socket.resume())
    }
    const toAgent = (chunk: Buffer): void => {
      if (exchange.cut) return
      this.#frames.push(chunk)
      exchange.bytesDown += chunk.length
      if (socket.write(chunk)) return
      upstream.pause()
      socket.once('drain', () => upstream.resume())
    }
    socket.off('end', this.#leftEarly)
    if (head.length > 0) toUpstream(head)
    socket.on('data', toUpstream)
    socket.on('end', () => upstream.end())
    upstream.on('data', toAgent)
    upstream.on('end', () => socket.end())
    upstream.on('close', () => {
      if (!exchange.cut) socket.destroySoon()
    })
  }

  #upstreamFailed(error: Error): void {
    const { exchange, socket } = this.#options
    if (exchange.cut || socket.destroyed) return
    this.#failure = error.name
    socket.resetAndDestroy()
  }

  /** The agent's side is over, whoever ended it. */
  closed(): void {
    const { exchange, socket } = this.#options
    const status = this.#upstream ? 101 : null
    this.cutUpstream()
    if (exchange.cut) return this.#resolve({ status, end: 'cut' })
    const error = this.#refused ?? this.#failure
    if (error !== undefined) return this.#resolve({ status, end: 'upstream-failed', error })
    const isComplete = this.#upstream !== undefined && !socket.errored
    this.#resolve({ status, end: isComplete ? 'complete' : 'client-gone' })
  }
}

const abortion = new Error('The exchange is over')

/** RFC 6455 section 4.2.2: proof that the upstream did read this handshake. */
function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
}
