import { createHash } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Dispatcher } from 'undici'
import { deny } from '../policy/denial.ts'
import type { Denial } from '../policy/types.ts'
import { findAnswerProblem, rawFields } from './answer-head.ts'
import type { AgentRequest } from './arrival.ts'
import type { Cut, CutHow, Exchange } from './exchange.ts'
import type { ForwardOutcome } from './forward.ts'
import { sendPlainAnswer, type PlainAnswer } from './plain-answer.ts'
import { resetConnection } from './reset-connection.ts'
import type { UpstreamClient } from './upstream-client.ts'
import { closeFrame, maskedCloseFrame, WebSocketFrames } from './websocket-frames.ts'

/** Refuses an upgrade that is not one whole WebSocket handshake (RFC 6455 section 4.2.1). */
export function checkHandshake({ method, headers }: AgentRequest): Denial | undefined {
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
  responseHeaders(raw: readonly string[]): string[]
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
/** How long one side may stay open after the other has ended: a WebSocket has no half (RFC 6455 section 7.1.1). */
const halfOpenMs = 2_000
/** An answer that is no switch says why in few words. */
const maxAnswerBytes = 65_536

class Upgrading implements Dispatcher.DispatchHandler {
  readonly #options: UpgradeOptions
  readonly #resolve: (outcome: ForwardOutcome) => void
  /** What the agent got, and what the upstream got. */
  readonly #down = new WebSocketFrames()
  readonly #up = new WebSocketFrames()
  #controller: Dispatcher.DispatchController | undefined
  #upstream: Duplex | undefined
  #answer: PlainAnswer | undefined
  #isAnswered = false
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

  /** Any other answer than 101: it passes as an answer to a plain request would. */
  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    _headers: unknown,
    message = '',
  ): void {
    if (this.#isOver() || status < 200) return
    if (status === 401 || status === 407) {
      const detail = `the upstream answered ${status} to the upgrade`
      return this.#refuse(deny('upstream-credential-rejected', detail))
    }
    const raw = rawFields(controller)
    const problem = findAnswerProblem(status, raw)
    if (problem !== undefined) return this.#refuse(deny('upstream-unreachable', problem))
    const headers = this.#options.responseHeaders(raw)
    this.#answer = { status, message, headers, pieces: [], length: 0 }
  }

  onResponseData(_controller: unknown, chunk: Buffer): void {
    const answer = this.#answer
    if (this.#isOver() || !answer) return
    answer.pieces.push(chunk)
    answer.length += chunk.length
    if (answer.length > maxAnswerBytes) {
      this.#refuse(deny('upstream-unreachable', 'the answer to the upgrade is too large'))
    }
  }

  onResponseEnd(): void {
    const answer = this.#answer
    if (this.#isOver() || !answer) return
    const { res, exchange } = this.#options
    exchange.bytesDown += answer.length
    this.#isAnswered = true
    sendPlainAnswer(res, answer)
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
    if (this.#down.atBoundary && socket.writableLength === 0) {
      socket.write(closeFrame(cut.code))
      socket.destroySoon()
      setTimeout(() => resetConnection(socket), closeMs).unref()
      return 'close-1008'
    }
    resetConnection(socket)
    return 'reset'
  }

  cutUpstream(): void {
    const upstream = this.#upstream
    if (!upstream) return this.#controller?.abort(abortion)
    const { cut } = this.#options.exchange
    if (upstream.writableEnded) return
    if (!cut || !this.#up.atBoundary || upstream.writableLength > 0) return void upstream.destroy()
    upstream.end(maskedCloseFrame(cut.code))
    upstream.resume()
    setTimeout(() => upstream.destroy(), closeMs).unref()
  }

  /** An agent that ends its side before the switch waits for nothing any more. */
  readonly #leftEarly = (): void => {
    if (!this.#isOver()) this.#options.socket.destroy()
  }

  #isOver(): boolean {
    const { exchange, socket } = this.#options
    return (
      this.#refused !== undefined ||
      this.#isAnswered ||
      exchange.cut !== undefined ||
      socket.destroyed
    )
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
      this.#up.push(chunk)
      exchange.bytesUp += chunk.length
      if (upstream.write(chunk)) return
      socket.pause()
      upstream.once('drain', () => socket.resume())
    }
    const toAgent = (chunk: Buffer): void => {
      if (exchange.cut) return
      this.#down.push(chunk)
      exchange.bytesDown += chunk.length
      if (socket.write(chunk)) return
      upstream.pause()
      socket.once('drain', () => upstream.resume())
    }
    socket.off('end', this.#leftEarly)
    if (head.length > 0) toUpstream(head)
    socket.on('data', toUpstream)
    socket.on('end', () => {
      upstream.end()
      this.#boundHalf(upstream)
    })
    upstream.on('data', toAgent)
    upstream.on('end', () => {
      socket.end()
      this.#boundHalf(upstream)
    })
    upstream.on('close', () => {
      if (!exchange.cut) socket.destroySoon()
    })
  }

  #boundHalf(upstream: Duplex): void {
    const { socket } = this.#options
    const timer = setTimeout(() => {
      upstream.destroy()
      socket.destroy()
    }, halfOpenMs)
    timer.unref()
    socket.once('close', () => clearTimeout(timer))
  }

  #upstreamFailed(error: Error): void {
    const { exchange, socket } = this.#options
    if (exchange.cut || socket.destroyed) return
    this.#failure = error.name
    resetConnection(socket)
  }

  /** A close frame that is on its way to the upstream goes on: it has its own deadline. */
  #leaveUpstream(): void {
    if (!this.#upstream) this.#controller?.abort(abortion)
    else if (!this.#options.exchange.cut) this.#upstream.destroy()
  }

  /** The agent's side is over, whoever ended it. */
  closed(): void {
    const { exchange, socket, res } = this.#options
    const status = this.#upstream ? 101 : this.#isAnswered ? res.statusCode : null
    this.#leaveUpstream()
    if (exchange.cut) return this.#resolve({ status, end: 'cut' })
    const error = this.#refused ?? this.#failure
    if (error !== undefined) return this.#resolve({ status, end: 'upstream-failed', error })
    const isComplete = this.#isAnswered ? res.writableFinished : !!this.#upstream && !socket.errored
    this.#resolve({ status, end: isComplete ? 'complete' : 'client-gone' })
  }
}

const abortion = new Error('The exchange is over')

/** RFC 6455 section 4.2.2: proof that the upstream did read this handshake. */
function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
}
