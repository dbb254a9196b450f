import { placeFinding } from '../config/place-finding.ts'
import { formatProblem } from '../config/problem.ts'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import type { UpstreamConfig } from '../config/schema.ts'
import { parseYaml } from '../config/yaml-source.ts'
import type { ApiOperations } from '../policy/api-operations.ts'
import { readOpenApi } from '../policy/openapi.ts'
import { parseStrictJson } from '../policy/strict-json.ts'
import { readToolTypes, type ToolTypes } from '../policy/tool-types.ts'
import type { Upstream } from '../policy/types.ts'
import { PolicyFileError } from './policy-files.ts'

/** What policies see of the configured upstreams, by name. Throws `PolicyFileError` when a file of theirs is not one. */
export function upstreamFacts(upstreams: readonly UpstreamConfig[]): ReadonlyMap<string, Upstream> {
  // One schema is for all: where one upstream has typed arguments or named operations, every other has none of them.
  const isTyped = upstreams.some(({ tools }) => tools !== undefined)
  const isDescribed = upstreams.some(({ openapi }) => openapi !== undefined)
  return new Map(
    upstreams.map(({ name, kind, url, sensitivity, tools, openapi }) => {
      const { origin, pathname } = new URL(url)
      const facts: Upstream = {
        name,
        kind,
        origin,
        sensitivity,
        ...(isTyped && { tools: tools === undefined ? new Map() : readTools(tools) }),
        ...(isDescribed && {
          operations: openapi === undefined ? new Map() : readOperations(openapi, pathname),
        }),
      }
      return [name, facts]
    }),
  )
}

const maxToolsBytes = 1024 * 1024
const maxOpenApiBytes = 2 * 1024 * 1024
const maxOpenApiDepth = 64
/** One slip in a long document repeats itself. */
const maxProblems = 100

function readTools(file: string): ToolTypes {
  const bytes = Buffer.from(read(file, maxToolsBytes))
  const parsed = parseStrictJson(bytes, { maxBytes: maxToolsBytes, maxDepth: 64 })
  if (!parsed.ok) throw new PolicyFileError(`${file}: Expected JSON: ${parsed.reason}`)
  const tools = readToolTypes(parsed.value)
  if (tools.ok) return tools.tools
  throw new PolicyFileError(`${file}: ${tools.reason}`)
}

/** JSON is YAML too, but is read ten times as fast: places are looked up only when something is wrong. */
function readOperations(file: string, pathname: string): ApiOperations {
  const text = read(file, maxOpenApiBytes)
  const options = { basePath: pathname.replace(/\/$/, '') }
  const json = parseStrictJson(Buffer.from(text), {
    maxBytes: maxOpenApiBytes,
    maxDepth: maxOpenApiDepth,
  })
  const known = json.ok ? readOpenApi(json.value, options) : undefined
  if (known?.ok === true) return known.operations
  const yaml = parseYaml(text, { anyKeys: true })
  if (!yaml.ok) {
    throw refused(yaml.problems.map((problem) => formatProblem({ file, path: '', ...problem })))
  }
  const { source } = yaml
  const result = readOpenApi(source.value, options)
  if (result.ok) return result.operations
  throw refused(
    result.findings.map((finding) => formatProblem(placeFinding(finding, { source, file }))),
  )
}

function refused(lines: readonly string[]): PolicyFileError {
  return new PolicyFileError(lines.slice(0, maxProblems).join('\n'))
}

function read(file: string, maxBytes: number): string {
  try {
    return readTextFile(file, { maxBytes })
  } catch (error) {
    if (!(error instanceof TextFileError)) throw error
    const { line, col } = error.place ?? { line: 1, col: 1 }
    throw new PolicyFileError(`${file}:${line}:${col} ${error.message}`, { cause: error })
  }
}
