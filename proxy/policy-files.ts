import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import type { Config } from '../config/schema.ts'
import type { PolicySource } from '../policy/cedar.ts'

/** A policy file or directory cannot be read. The message names it and never quotes it. */
export class PolicyFileError extends Error {
  override readonly name = 'PolicyFileError'
  readonly code = 'ERR_POLICY_FILE'
}

/**
 * The system policies, which no directory can replace, and then the `*.cedar` files of the directory by name, or the
 * shipped default policy. Throws `PolicyFileError`.
 */
export function loadPolicyFiles({ directory }: Config['policy']): readonly PolicySource[] {
  const paths = directory === undefined ? [shippedPath('default.cedar')] : listPolicies(directory)
  return [shippedPath('system.cedar'), ...paths].map((file) => ({ file, text: read(file) }))
}

/** The schema that all policies are checked against. Throws `PolicyFileError`. */
export function cedarSchema(): string {
  return read(shippedPath('chaperone.cedarschema'))
}

const maxFileBytes = 1024 * 1024
const maxFiles = 500

/** The build copies the shipped policies, so that the same relative path holds in `dist`. */
function shippedPath(name: string): string {
  return fileURLToPath(new URL(`../policy/cedar/${name}`, import.meta.url))
}

function listPolicies(directory: string): readonly string[] {
  const names = listNames(directory)
    // A mounted ConfigMap keeps its generations in hidden entries.
    .filter((name) => name.endsWith('.cedar') && !name.startsWith('.'))
    .toSorted()
  // An empty directory is a mount that failed rather than the wish to refuse everything.
  if (names.length === 0) throw new PolicyFileError(`${directory}: Expected *.cedar files`)
  if (names.length > maxFiles) {
    throw new PolicyFileError(`${directory}: Expected at most ${maxFiles} *.cedar files`)
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
    return readTextFile(path, { maxBytes: maxFileBytes })
  } catch (error) {
    if (error instanceof TextFileError) throw new PolicyFileError(`${path}: ${error.message}`)
    throw error
  }
}
