import { createHash } from 'node:crypto'
import { dirname, resolve } from 'node:path'
import { findContradictions } from './contradictions.ts'
import { placeFinding } from './place-finding.ts'
import type { ConfigProblem, Finding } from './problem.ts'
import { readTextFile, TextFileError } from './read-text-file.ts'
import { resolveFiles } from './resolve-files.ts'
import { configSchema, type Config } from './schema.ts'
import { validateValue } from './validate.ts'
import { parseYaml } from './yaml-source.ts'

export { formatProblem, type ConfigProblem } from './problem.ts'

export type LoadResult =
  | {
      readonly ok: true
      /** Paths in it are absolute. */
      readonly config: Config
      /** Of the file's text, lower-case hex. */
      readonly sha256: string
    }
  | {
      readonly ok: false
      /** In the order of the file; never empty. */
      readonly problems: readonly ConfigProblem[]
    }

/** Reads and validates a configuration file. Whatever is wrong with it, also that it is not there, is a problem. */
export function loadConfig(path: string): LoadResult {
  try {
    return parseConfig(readTextFile(path, { maxBytes: maxConfigBytes }), path)
  } catch (error) {
    if (!(error instanceof TextFileError)) throw error
    const { message } = error
    return { ok: false, problems: [{ file: path, line: 1, col: 1, path: '', message }] }
  }
}

/** Validates the text of a configuration file. Relative paths in it are taken from the directory of `file`. */
export function parseConfig(
  text: string,
  file: string,
  { nowMs = Date.now() }: { readonly nowMs?: number } = {},
): LoadResult {
  const yaml = parseYaml(text)
  if (!yaml.ok) {
    return refuse(yaml.problems.map((problem) => ({ file, path: '', ...problem })))
  }
  const { source } = yaml
  const place = (finding: Finding) => placeFinding(finding, { source, file })
  const validated = validateValue(configSchema, source.value)
  if (!validated.ok) return refuse(validated.findings.map(place))
  const contradictions = findContradictions(validated.value, { nowMs })
  if (contradictions.length > 0) return refuse(contradictions.map(place))
  return {
    ok: true,
    config: resolveFiles(validated.value, dirname(resolve(file))),
    sha256: createHash('sha256').update(text).digest('hex'),
  }
}

const maxConfigBytes = 1024 * 1024
/** One slip in a long list repeats itself: nobody reads further than this. */
const maxProblems = 100

function refuse(problems: readonly ConfigProblem[]): LoadResult {
  const sorted = problems.toSorted((a, b) => a.line - b.line || a.col - b.col)
  return { ok: false, problems: sorted.slice(0, maxProblems) }
}
