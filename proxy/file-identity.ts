import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** Files and directories of files, and what they were like when they were read. */
export interface WatchedFiles {
  readonly paths: readonly string[]
  readonly identity: string
}

/** Of the file behind all symlinks: a mounted ConfigMap changes by a symlink swap. */
export function identify(path: string): string {
  try {
    const stat = statSync(path)
    const { ino, mtimeMs, size } = stat
    // The time of a directory tells of every file in it, and one may be our own audit log.
    return stat.isDirectory() ? `${ino}` : `${ino}:${mtimeMs}:${size}`
  } catch {
    return 'absent'
  }
}

/** Text that changes when one of the paths does, or a file of policies or cases in a directory among them. */
export function identifyAll(paths: readonly string[]): string {
  return paths
    .flatMap((path) => [
      `${path} ${identify(path)}`,
      ...listNames(path).map((name) => `${name} ${identify(join(path, name))}`),
    ])
    .join('\n')
}

const readForm = /\.(?:cedar|ya?ml)$/
/** A set of policies has fewer: more are not looked at one by one. */
const maxFiles = 1024

function listNames(path: string): readonly string[] {
  try {
    // A mounted ConfigMap keeps its generations in hidden entries.
    return readdirSync(path)
      .filter((name) => !name.startsWith('.') && readForm.test(name))
      .slice(0, maxFiles)
  } catch {
    return []
  }
}
