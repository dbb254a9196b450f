import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import type { UpstreamConfig } from '../config/schema.ts'
import { parseStrictJson } from '../policy/strict-json.ts'
import { readToolTypes, type ToolTypes } from '../policy/tool-types.ts'
import type { Upstream } from '../policy/types.ts'
import { PolicyFileError } from './policy-files.ts'

/** What policies see of the configured upstreams, by name. Throws `PolicyFileError` when a file of tools is not one. */
export function upstreamFacts(upstreams: readonly UpstreamConfig[]): ReadonlyMap<string, Upstream> {
  // One schema is for all: where one upstream has typed arguments, a call of every other has none of them.
  const isTyped = upstreams.some(({ tools }) => tools !== undefined)
  return new Map(
    upstreams.map(({ name, kind, url, sensitivity, tools: file }) => {
      const tools: ToolTypes = file === undefined ? new Map() : readTools(file)
      const facts = { name, kind, origin: new URL(url).origin, sensitivity }
      return [name, isTyped ? { ...facts, tools } : facts]
    }),
  )
}

const maxToolsBytes = 1024 * 1024

function readTools(file: string): ToolTypes {
  try {
    const bytes = Buffer.from(readTextFile(file, { maxBytes: maxToolsBytes }))
    const parsed = parseStrictJson(bytes, { maxBytes: maxToolsBytes, maxDepth: 64 })
    if (!parsed.ok) throw new PolicyFileError(`${file}: Expected JSON: ${parsed.reason}`)
    const read = readToolTypes(parsed.value)
    if (read.ok) return read.tools
    throw new PolicyFileError(`${file}: ${read.reason}`)
  } catch (error) {
    if (error instanceof TextFileError) throw new PolicyFileError(`${file}: ${error.message}`)
    throw error
  }
}
