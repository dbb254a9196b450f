import { readFileSync, statSync } from 'node:fs'
import type { Clock } from '../policy/types.ts'

/** The grant of a one-task pod, read again when the file changes. */
export interface GrantFile {
  /** The compact grant, or undefined while the file cannot be read: then every request is refused. */
  compact(): string | undefined
}

const maxGrantFileBytes = 16_384
/** How often the file is looked at, at most. */
const checkEveryMs = 1_000

/** Looks at the file's identity, not only its time: a mounted secret changes by a symlink swap. */
export function openGrantFile(path: string, clock: Clock): GrantFile {
  let text: string | undefined
  let identity = ''
  let checkedAtMs = Number.NEGATIVE_INFINITY
  return {
    compact() {
      const now = clock.monotonic()
      if (now - checkedAtMs < checkEveryMs) return text
      checkedAtMs = now
      try {
        const { ino, mtimeMs, size } = statSync(path)
        const current = `${ino}:${mtimeMs}:${size}`
        if (current === identity) return text
        text = size > maxGrantFileBytes ? undefined : readFileSync(path, 'utf8').trim()
        identity = current
      } catch {
        text = undefined
        identity = ''
      }
      return text
    },
  }
}
