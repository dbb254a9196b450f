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
      checkedAtMs = now
      if (current === identity) return secret
      secret = checkSecret(readFileSync(path, 'utf8'), path)
      identity = current
      return secret
    },
  }
}

function identify(path: string): string {
  try {
    const { ino, mtimeMs, size } = statSync(path)
    if (size > maxSecretBytes) {
      throw new CredentialError(`Secret file ${path}: Expected at most ${maxSecretBytes} bytes`)
    }
    return `${ino}:${mtimeMs}:${size}`
  } catch (error) {
    if (error instanceof CredentialError) throw error
    throw new CredentialError(`Secret file ${path}: cannot be read`, { cause: error })
  }
}

function checkSecret(text: string, path: string): string {
  const secret = text.replace(/\r?\n$/, '')
  if (secret === '') throw new CredentialError(`Secret file ${path}: is empty`)
  return secret
}
