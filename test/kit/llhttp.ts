import { createRequire } from 'node:module'

/** What a reader made of the bytes of one answer, with the interim ones before it. */
export interface Reading {
  readonly heads: readonly ReadHead[]
  /** Latin-1. */
  readonly body: string
  /** Flat. */
  readonly trailers: readonly string[]
  /** How many bytes the answer took; undefined while it is not whole. */
  readonly end: number | undefined
  /** By its bytes; one that is cut short is not whole, and no more. */
  readonly isRefused: boolean
}

export interface ReadHead {
  readonly status: number
  readonly reason: string
  /** Flat. */
  readonly fields: readonly string[]
}

/** The parser of Node's own clients, in its strict mode. */
interface Llhttp {
  [callback: number]: (...args: readonly never[]) => unknown
  initialize(type: number, resource: object): void
  execute(bytes: Buffer): number | Error
  finish(): Error | undefined
}
interface LlhttpClass {
  new (): Llhttp
  readonly RESPONSE: number
  readonly kOnHeaders: number
  readonly kOnHeadersComplete: number
  readonly kOnBody: number
  readonly kOnMessageComplete: number
}
const { HTTPParser: Parser } = createRequire(import.meta.url)('_http_common') as {
  readonly HTTPParser: LlhttpClass
}

/** Reads one answer, byte by byte: so it is known where it ends. Then the upstream ends its side. */
export function readWithLlhttp(bytes: Buffer, { method }: { readonly method: string }): Reading {
  const heads: ReadHead[] = []
  const pieces: Buffer[] = []
  let fields: readonly string[] = []
  let trailers: readonly string[] = []
  let isWhole = false
  const parser = new Parser()
  parser.initialize(Parser.RESPONSE, {})
  // Fields come in parts when there are many, and trailers always do.
  parser[Parser.kOnHeaders] = (more: readonly string[]) => {
    fields = [...fields, ...more]
  }
  parser[Parser.kOnHeadersComplete] = (...args: readonly unknown[]) => {
    const [, , flat, , , status, reason] = args as readonly [
      number,
      number,
      readonly string[] | undefined,
      unknown,
      unknown,
      number,
      string,
    ]
    heads.push({ status, reason, fields: [...fields, ...(flat ?? [])] })
    fields = []
    // No body follows, whatever the fields say.
    return method === 'HEAD' || status < 200 || status === 204 || status === 304 ? 1 : 0
  }
  parser[Parser.kOnBody] = (piece: Buffer) => {
    pieces.push(Buffer.from(piece))
  }
  parser[Parser.kOnMessageComplete] = () => {
    trailers = fields
    fields = []
    isWhole = (heads.at(-1)?.status ?? 0) >= 200
  }
  const reading = (end: number | undefined, isRefused: boolean): Reading => ({
    heads,
    body: Buffer.concat(pieces).toString('latin1'),
    trailers,
    end,
    isRefused,
  })
  for (let at = 0; at < bytes.length; at++) {
    if (parser.execute(bytes.subarray(at, at + 1)) instanceof Error) return reading(undefined, true)
    if (isWhole) return reading(at + 1, false)
  }
  parser.finish()
  return reading(isWhole ? bytes.length : undefined, false)
}
