import { createHash } from 'node:crypto'
import { dirname, resolve } from 'node:path'
import { findContradictions } from './contradictions.ts'
import { formatPath, type ConfigProblem, type Finding } from './problem.ts'
import { readTextFile, TextFileError } from './read-text-file.ts'
import { resolveFiles } from './resolve-files.ts'
import type { Config } from './schema.ts'
import { validateConfig } from './validate.ts'
import { parseYaml, type YamlSource } from './yaml-source.ts'

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
export function parseConfig(text: string, file: string): LoadResult {
  const yaml = parseYaml(text)
  if (!yaml.ok) {
    return refuse(yaml.problems.map((problem) => ({ file, path: '', ...problem })))
  }
  const { source } = yaml
  const place = (finding: Finding) => placeFinding(finding, { source, file })
  const validated = validateConfig(source.value)
  if (!validated.ok) return refuse(validated.findings.map(place))
  const contradictions = findContradictions(validated.config)
  if (contradictions.length > 0) return refuse(contradictions.map(place))
  return {
    ok: true,
    config: resolveFiles(validated.config, dirname(resolve(file))),
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

function placeFinding(
  { path, message, suggestion, atKey = false }: Finding,
  { source, file }: { readonly source: YamlSource; readonly file: string },
): ConfigProblem {
  return {
    file,
    ...source.locate(path, { atKey }),
    path: formatPath(path),
    message,
    ...(suggestion !== undefined && { suggestion }),
  }
}
