import { closeSync, fstatSync, openSync, readSync } from 'node:fs'

/** A file cannot be used as text. The message names the reason, and neither the path nor what the file holds. */
export class TextFileError extends Error {
  override readonly name = 'TextFileError'
  readonly code = 'ERR_TEXT_FILE'
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
    throw new TextFileError('The file is not UTF-8')
  }
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
