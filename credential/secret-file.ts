import { readFileSync, statSync } from 'node:fs'
import type { Clock } from '../policy/types.ts'
import { CredentialError } from './issuer.ts'

/** A secret on disk, read again when the file changes. */
export interface SecretFile {
  /** The secret without its final newline. Throws `CredentialError` when there is none to use. */
  read(): string
}

const maxSecretBytes = 65_536
/** How often the file is looked at, at most. */
const checkEveryMs = 1_000

/** The file's identity is compared, not only its time: a mounted secret changes by a symlink swap. */
export function openSecretFile(path: string, clock: Clock): SecretFile {
  let secret = ''
  let identity = ''
  let checkedAtMs = Number.NEGATIVE_INFINITY
  return {
    read() {
      const now = clock.monotonic()
      if (identity !== '' && now - checkedAtMs < checkEveryMs) return secret
      const current = identify(path)
      if (current !== identity) {
        secret = checkSecret(readSecret(path), path)
        identity = current
      }
      // Only now: a file that was refused is refused until it is good, not until the next look.
      checkedAtMs = now
      return secret
    },
  }
}

function identify(path: string): string {
  const { ino, mtimeMs, size } = orUnreadable(path, () => statSync(path))
  if (size > maxSecretBytes) {
    throw new CredentialError(`Secret file ${path}: Expected at most ${maxSecretBytes} bytes`)
  }
  return `${ino}:${mtimeMs}:${size}`
}

function readSecret(path: string): string {
  return orUnreadable(path, () => readFileSync(path, 'utf8'))
}

function orUnreadable<T>(path: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    throw new CredentialError(`Secret file ${path}: cannot be read`, { cause })
  }
}

function checkSecret(text: string, path: string): string {
  const secret = text.replace(/\r?\n$/, '')
  if (secret === '') throw new CredentialError(`Secret file ${path}: is empty`)
  return secret
}
