import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import type { Preset } from '../config/preset-schema.ts'
import { maxPolicyFileBytes, maxPolicyFiles, type PolicySource } from '../policy/cedar.ts'
import { withApiOperations } from '../policy/api-operations.ts'
import { withToolTypes } from '../policy/tool-types.ts'
import type { Upstream } from '../policy/types.ts'
import { compilePresets } from '../policy/preset.ts'

/** A policy file or directory cannot be read. The message names it and never quotes it. */
export class PolicyFileError extends Error {
  override readonly name = 'PolicyFileError'
  readonly code = 'ERR_POLICY_FILE'
}

/** Where an operator's policies are. */
export interface PolicyLocation {
  readonly directory?: string | undefined
  /** Rules without Cedar. Default: none. */
  readonly presets?: readonly Preset[]
}

/**
 * The system policies, which no directory can replace, and then the `*.cedar` files of the directory by name, or the
 * shipped default policy, and the presets. Throws `PolicyFileError`.
 */
export function loadPolicyFiles({
  directory,
  presets = [],
}: PolicyLocation): readonly PolicySource[] {
  const byDefault = presets.length > 0 ? [] : [shippedPath('default.cedar')]
  const paths = directory === undefined ? byDefault : listFiles(directory, { suffix: '.cedar' })
  const files = [shippedPath('system.cedar'), ...paths].map((file) => ({ file, text: read(file) }))
  return presets.length === 0 ? files : [...files, compilePresets(presets, { file: 'presets' })]
}

/** The schema that all policies are checked against, with what the upstreams' files add to it. Throws `PolicyFileError`. */
export function cedarSchema(upstreams: ReadonlyMap<string, Upstream> = new Map()): string {
  const schema = withToolTypes(read(shippedPath('chaperone.cedarschema')), upstreams.values())
  return withApiOperations(schema, upstreams.values())
}

/** The build copies the shipped policies, so that the same relative path holds in `dist`. */
function shippedPath(name: string): string {
  return fileURLToPath(new URL(`../policy/cedar/${name}`, import.meta.url))
}

/** The files of a directory with this ending, by name; never none. Throws `PolicyFileError`. */
export function listFiles(
  directory: string,
  { suffix }: { readonly suffix: string },
): readonly string[] {
  const names = listNames(directory)
    // A mounted ConfigMap keeps its generations in hidden entries.
    .filter((name) => name.endsWith(suffix) && !name.startsWith('.'))
    .toSorted()
  // An empty directory is a mount that failed rather than the wish to refuse everything.
  if (names.length === 0) {
    const advice =
      suffix === '.cedar' ? '. To refuse everything, put in a policy that forbids everything' : ''
    throw new PolicyFileError(`${directory}: Expected *${suffix} files${advice}`)
  }
  if (names.length > maxPolicyFiles) {
    throw new PolicyFileError(`${directory}: Expected at most ${maxPolicyFiles} *${suffix} files`)
  }
  return names.map((name) => join(directory, name))
}

function listNames(directory: string): readonly string[] {
  try {
    return readdirSync(directory)
  } catch {
    throw new PolicyFileError(`${directory}: Expected a directory that can be read`)
  }
}

function read(path: string): string {
  try {
    return readTextFile(path, { maxBytes: maxPolicyFileBytes })
  } catch (error) {
    if (!(error instanceof TextFileError)) throw error
    const { place, message } = error
    const where = place ? `${path}:${place.line}:${place.col} ` : `${path}: `
    throw new PolicyFileError(`${where}${message}${adviceOn(message)}`, { cause: error })
  }
}

function adviceOn(message: string): string {
  if (message === 'The file is not UTF-8') return ': save it as UTF-8'
  // Between the listing and here, or a link that leads nowhere.
  return message === 'The file does not exist' ? ' any more: put it back, or take its name out' : ''
}
