import { closeSync, fstatSync, openSync, readSync } from 'node:fs'

/** A file cannot be used as text. The message names the reason, and neither the path nor what the file holds. */
export class TextFileError extends Error {
  override readonly name = 'TextFileError'
  readonly code = 'ERR_TEXT_FILE'
  /** Of what is wrong, from 1; absent when it is the file as a whole. */
  readonly place?: { readonly line: number; readonly col: number }

  constructor(message: string, place?: { readonly line: number; readonly col: number }) {
    super(message)
    if (place) this.place = place
  }
}

/** Reads a whole UTF-8 file of at most `maxBytes`. Throws `TextFileError`. */
export function readTextFile(path: string, { maxBytes }: { readonly maxBytes: number }): string {
  const bytes = readBytes(path, maxBytes)
  if (bytes.byteLength > maxBytes) {
    throw new TextFileError(`The file has more than ${maxBytes} bytes`)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new TextFileError('The file is not UTF-8', placeOfFirstBad(bytes))
  }
}

/** A lossy reading has a mark where bytes are no character; one that the file itself holds is three bytes long. */
function placeOfFirstBad(bytes: Buffer): { readonly line: number; readonly col: number } {
  let offset = 0
  let line = 1
  let col = 1
  for (const character of bytes.toString('utf8')) {
    if (character === '\ufffd' && bytes.toString('latin1', offset, offset + 3) !== 'ï¿½') break
    offset += Buffer.byteLength(character)
    col = character === '\n' ? 1 : col + 1
    if (character === '\n') line += 1
  }
  return { line, col }
}

/** One byte more than allowed is asked for, so that a file that grows while it is read is seen to be too large. */
function readBytes(path: string, maxBytes: number): Buffer {
  let fd: number | undefined
  try {
    fd = openSync(path, 'r')
    // A pipe or a device could block or never end.
    if (!fstatSync(fd).isFile()) throw new TextFileError('Expected a regular file')
    const buffer = Buffer.alloc(Math.min(fstatSync(fd).size, maxBytes) + 1)
    let length = 0
    while (length < buffer.byteLength) {
      const read = readSync(fd, buffer, length, buffer.byteLength - length, null)
      if (read === 0) break
      length += read
    }
    return buffer.subarray(0, length)
  } catch (error) {
    throw error instanceof TextFileError ? error : new TextFileError(describe(error))
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function describe(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
  return code === 'ENOENT' ? 'The file does not exist' : `The file cannot be read (${code})`
}
