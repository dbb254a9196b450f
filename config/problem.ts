/** One thing that is wrong with a configuration file. Names settings; never quotes a value, which may be a secret. */
export interface ConfigProblem {
  readonly file: string
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly col: number
  /** `upstreams[0].kind`; empty for the file as a whole. */
  readonly path: string
  readonly message: string
  /** The name that was perhaps meant. */
  readonly suggestion?: string
}

/** `chaperone.yaml:12:5 upstreams[0].kind: Expected rest or mcp` */
export function formatProblem(problem: ConfigProblem): string {
  const { file, line, col, path, message, suggestion } = problem
  const where = path === '' ? '' : ` ${path}:`
  const hint = suggestion === undefined ? '' : `; did you mean "${suggestion}"?`
  return `${file}:${line}:${col}${where} ${message}${hint}`
}

/** Where a setting stands: keys of mappings and indexes of sequences from the root. */
export type SettingPath = readonly (string | number)[]

/** A problem that is not placed in the file yet. */
export interface Finding {
  readonly path: SettingPath
  readonly message: string
  readonly suggestion?: string
  /** Whether the key itself is wrong, not what it holds. */
  readonly atKey?: boolean
}

/** `upstreams[0].kind`. A key that is no plain word is quoted and cut: it goes to a terminal. */
export function formatPath(path: SettingPath): string {
  return path.map(formatSegment).join('').replace(/^\./, '')
}

const maxKeyChars = 64

function formatSegment(segment: string | number): string {
  if (typeof segment === 'number') return `[${segment}]`
  if (/^[A-Za-z0-9_-]{1,64}$/.test(segment)) return `.${segment}`
  return `[${JSON.stringify(segment.slice(0, maxKeyChars))}]`
}
