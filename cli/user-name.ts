import { userInfo } from 'node:os'

/** The user of the system; by its number where it has no name, as in the image. */
export function userName(): string {
  try {
    return userInfo().username
  } catch {
    return `uid ${process.getuid?.() ?? 'unknown'}`
  }
}
