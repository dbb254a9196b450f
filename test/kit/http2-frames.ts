import { connect, type Socket } from 'node:net'
import { until } from './relay.ts'

/** RFC 9113 section 6: the frames that tests write and read. */
export const frameType = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

export const flag = { ack: 1, endStream: 1, endHeaders: 4 } as const

/** RFC 9113 section 7. */
export const errorCode = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  refusedStream: 7,
  cancel: 8,
  enhanceYourCalm: 11,
} as const

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

export type Field = readonly [name: string, value: string]

/** A client of HTTP/2 that writes what it is told, right or wrong, and keeps every frame that comes. */
export interface FramePeer {
  readonly socket: Socket
  readonly frames: readonly Frame[]
  send(...frames: readonly Buffer[]): void
  /** Resolves with the first frame, past or to come, that fits. */
  frame(fits: (frame: Frame) => boolean): Promise<Frame>
  /** Resolves once the connection is over. */
  readonly ended: Promise<void>
}

export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

/** Connects, and says hello unless told otherwise: preface and empty SETTINGS. */
export function openFrames(port: number, { hello = true } = {}): FramePeer {
  const peer = followFrames(connect(port, '127.0.0.1'))
  if (hello) peer.send(preface, frame('settings'))
  return peer
}

/** Reads frames from a socket; a client's preface is skipped. Acknowledges SETTINGS. */
export function followFrames(socket: Socket): FramePeer {
  const frames: Frame[] = []
  let held = Buffer.alloc(0)
  const ended = Promise.withResolvers<void>()
  const send = (...buffers: readonly Buffer[]): void => {
    for (const buffer of buffers) if (socket.writable) socket.write(buffer)
  }
  socket.on('data', (chunk) => {
    held = Buffer.concat([held, chunk])
    if (held.length >= preface.length && held.subarray(0, preface.length).equals(preface)) {
      held = held.subarray(preface.length)
    }
    for (let next = readFrame(held); next; next = readFrame(held)) {
      held = held.subarray(9 + next.payload.length)
      frames.push(next)
      const isNewSettings = next.type === frameType.settings && (next.flags & flag.ack) === 0
      if (isNewSettings) send(frame('settings', { flags: flag.ack }))
    }
  })
  socket.on('error', () => undefined)
  socket.on('close', () => ended.resolve())
  return {
    socket,
    frames,
    send,
    async frame(fits) {
      await until(
        () => frames.some(fits),
        () => `a frame among ${JSON.stringify(frames.map(describeFrame))}`,
      )
      const found = frames.find(fits)
      if (!found) throw new Error('Expected a frame')
      return found
    },
    ended: ended.promise,
  }
}

/** One frame as bytes. */
export function frame(
  type: keyof typeof frameType,
  options: { readonly flags?: number; readonly stream?: number; readonly payload?: Buffer } = {},
): Buffer {
  const { flags = 0, stream = 0, payload = Buffer.alloc(0) } = options
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(frameType[type], 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A whole HEADERS frame. */
export function headersFrame(
  stream: number,
  fields: readonly Field[],
  { endStream = true } = {},
): Buffer {
  const flags = flag.endHeaders | (endStream ? flag.endStream : 0)
  return frame('headers', { flags, stream, payload: headerBlock(fields) })
}

export function dataFrame(
  stream: number,
  data: string | Buffer,
  { endStream = false } = {},
): Buffer {
  const payload = Buffer.from(data)
  return frame('data', { flags: endStream ? flag.endStream : 0, stream, payload })
}

export function rstFrame(stream: number, code: number): Buffer {
  return frame('rstStream', { stream, payload: uint32(code) })
}

export function goawayFrame(lastStream: number, code: number): Buffer {
  return frame('goaway', { payload: Buffer.concat([uint32(lastStream), uint32(code)]) })
}

/** The code of an RST_STREAM, or of a GOAWAY. */
export function codeOf({ type, payload }: Frame): number {
  return payload.readUInt32BE(type === frameType.goaway ? 4 : 0)
}

/** RFC 7541 section 6.2.2: literal fields without indexing and without Huffman coding, name and value as given. */
export function headerBlock(fields: readonly Field[]): Buffer {
  return Buffer.concat(
    fields.flatMap(([name, value]) => [Buffer.of(0), literal(name), literal(value)]),
  )
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  return Buffer.concat([integer7(bytes.length), bytes])
}

/** RFC 7541 section 5.1, with a prefix of 7 bits. */
function integer7(value: number): Buffer {
  if (value < 127) return Buffer.of(value)
  const bytes = [127]
  let rest = value - 127
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  return Buffer.from([...bytes, rest])
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function readFrame(bytes: Buffer): Frame | undefined {
  if (bytes.length < 9) return undefined
  const length = bytes.readUIntBE(0, 3)
  if (bytes.length < 9 + length) return undefined
  return {
    type: bytes.readUInt8(3),
    flags: bytes.readUInt8(4),
    stream: bytes.readUInt32BE(5) & 0x7fffffff,
    payload: Buffer.from(bytes.subarray(9, 9 + length)),
  }
}

function describeFrame({ type, flags, stream, payload }: Frame): string {
  return `type ${type} flags ${flags} stream ${stream} length ${payload.length}`
}
