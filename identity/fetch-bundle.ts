import { constants, open, readFile } from 'node:fs/promises'
import type { TrustBundleConfig } from '../config/schema.ts'
import { maxBundleBytes } from './trust-bundle.ts'

/** A trust bundle could not be fetched or read. */
export class TrustBundleError extends Error {
  override readonly name = 'TrustBundleError'
  readonly code = 'ERR_TRUST_BUNDLE'
}

/** How long a source may take for the whole document. */
const timeoutMs = 10_000

/** Gets the bytes of a bundle document from where the configuration says. Rejects with `TrustBundleError`. */
export async function fetchBundle(
  source: TrustBundleConfig,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
  try {
    return 'file' in source
      ? await readBoundedFile(source.file, bounded)
      : await get(source, bounded)
  } catch (cause) {
    if (cause instanceof TrustBundleError) throw cause
    throw new TrustBundleError(`Cannot load the trust bundle: ${codeOf(cause)}`, { cause })
  }
}

/**
 * Opens first and asks the open file then: between a look and an open, a symlink may be swapped. Non-blocking, because
 * to open a pipe without a writer would hold a thread for ever.
 */
async function readBoundedFile(path: string, signal: AbortSignal): Promise<Uint8Array> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const stats = await file.stat()
  if (!stats.isFile())
    throw new TrustBundleError('Cannot load the trust bundle: not a regular file')
  if (stats.size > maxBundleBytes) throw tooLong()
  const bytes = await file.readFile({ signal })
  if (bytes.byteLength > maxBundleBytes) throw tooLong()
  return bytes
}

/** No redirect is followed: the operator named this address, and nobody else may name another. */
async function get(
  { url, caFile }: Extract<TrustBundleConfig, { url: string }>,
  signal: AbortSignal,
): Promise<Uint8Array> {
  // Only for this: the rest of what it brings is never used.
  const { Agent, request } = await import('undici')
  // Read anew each time, so that a rotated authority needs no restart.
  const ca = caFile === undefined ? undefined : await readFile(caFile, { signal })
  const agent = new Agent({ connect: { timeout: timeoutMs, ...(ca && { ca }) }, pipelining: 0 })
  try {
    const { statusCode, body } = await request(url, {
      dispatcher: agent,
      signal,
      headers: { accept: 'application/json' },
    })
    if (statusCode !== 200) {
      throw new TrustBundleError(
        `Cannot load the trust bundle: got status ${statusCode}, expected 200`,
      )
    }
    const pieces: Uint8Array[] = []
    let length = 0
    for await (const piece of body) {
      if (!(piece instanceof Uint8Array)) throw new TypeError('Expected bytes')
      length += piece.byteLength
      if (length > maxBundleBytes) throw tooLong()
      pieces.push(piece)
    }
    return Buffer.concat(pieces)
  } finally {
    await agent.destroy()
  }
}

function tooLong(): TrustBundleError {
  return new TrustBundleError(`Cannot load the trust bundle: longer than ${maxBundleBytes} bytes`)
}

/** The system's short word for what happened (`ENOENT`, `TimeoutError`): messages may quote foreign text. */
function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error'
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
