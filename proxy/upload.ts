import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { UpstreamRequestError } from './request-head.ts'

export interface UploadOptions {
  readonly body: Readable
  /** Its Content-Length; undefined: it goes in chunks. */
  readonly length: number | undefined
  /** A piece was written. */
  progress(): void
  done(): void
  fail(error: Error): void
}

/** Writes a body that comes piece by piece, no faster than the upstream takes it. */
export class Upload {
  readonly #socket: Socket
  readonly #options: UploadOptions
  #sent = 0
  #isOver = false

  constructor(socket: Socket, options: UploadOptions) {
    this.#socket = socket
    this.#options = options
    const { body } = options
    body.on('data', (piece: Buffer) => this.#write(piece))
    body.on('end', () => this.#end())
    body.on('error', (error) => this.#fail(error))
  }

  /** The socket has room again. */
  drained(): void {
    if (!this.#isOver) this.#options.body.resume()
  }

  /** Nobody waits for the rest any more. */
  cancel(): void {
    this.#isOver = true
    this.#options.body.destroy()
  }

  #write(piece: Buffer): void {
    if (this.#isOver || piece.length === 0) return
    const { body, length } = this.#options
    this.#sent += piece.length
    if (length !== undefined && this.#sent > length) return this.#fail(mismatch())
    const hasRoom = length === undefined ? this.#writeChunk(piece) : this.#socket.write(piece)
    this.#options.progress()
    if (!hasRoom) body.pause()
  }

  #writeChunk(piece: Buffer): boolean {
    const socket = this.#socket
    socket.cork()
    socket.write(`${piece.length.toString(16)}\r\n`, 'latin1')
    socket.write(piece)
    const hasRoom = socket.write('\r\n', 'latin1')
    socket.uncork()
    return hasRoom
  }

  #end(): void {
    if (this.#isOver) return
    const { length } = this.#options
    if (length !== undefined && this.#sent !== length) return this.#fail(mismatch())
    this.#isOver = true
    if (length === undefined) this.#socket.write('0\r\n\r\n', 'latin1')
    this.#options.done()
  }

  #fail(error: Error): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#options.fail(error)
  }
}

/** What is too much would be read as the next request. */
function mismatch(): UpstreamRequestError {
  return new UpstreamRequestError('The body is not as long as its Content-Length')
}
