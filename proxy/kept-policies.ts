import { createHash } from 'node:crypto'
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { deserialize, serialize } from 'node:v8'
import {
  buildPolicySet,
  type BuildPolicySetResult,
  type CompileOptions,
  type PolicySource,
} from '../policy/cedar.ts'
import { cedarSha256 } from '../policy/cedar-module.ts'
import { version } from './version.ts'

type Built = Extract<BuildPolicySetResult, { readonly ok: true }>

/** An instance of the engine cannot be kept: the image of it is. */
type Kept = Omit<Built, 'cedar'>
type Result = (Kept & Partial<Pick<Built, 'cedar'>>) | Exclude<BuildPolicySetResult, Built>

/** Another program comes with another folder. Run from its sources, the program keeps nothing. */
const besideProgram = import.meta.url.endsWith('.js')
  ? fileURLToPath(new URL('../.compiled/policies', import.meta.url))
  : undefined

/**
 * `buildPolicySet()`, or what it gave an earlier process for the very same texts: half of a start is saved. Kept beside the
 * program, where only those can write who could change the program itself. What cannot be kept, or is not as it was
 * written, is built again. Never throws.
 */
export function buildOrRecall(
  sources: readonly PolicySource[],
  options: CompileOptions,
  folder = besideProgram,
): Result {
  if (folder === undefined) return buildPolicySet(sources, options)
  const path = join(folder, nameOf({ sources, options }))
  const kept = recall(path)
  if (kept) return kept
  const built = buildPolicySet(sources, options)
  if (built.ok) keep(path, { folder, ...built })
  return built
}

const digestBytes = 32
const maxBytes = 64 * 1024 * 1024
const maxKept = 8

function nameOf(inputs: object): string {
  const program = [version, process.version, cedarSha256()].join('\n')
  return createHash('sha256').update(program).update(serialize(inputs)).digest('hex')
}

function recall(path: string): Kept | undefined {
  try {
    const bytes = readFileSync(path)
    const body = bytes.subarray(digestBytes)
    if (!digestOf(body).equals(bytes.subarray(0, digestBytes))) return undefined
    const kept: Kept = deserialize(body)
    return kept
  } catch {
    return undefined
  }
}

function keep(path: string, { folder, set, policies }: Built & { readonly folder: string }): void {
  const body = serialize({ ok: true, set, policies } satisfies Kept)
  if (body.byteLength > maxBytes) return
  const half = `${path}.${process.pid}`
  try {
    mkdirSync(folder, { recursive: true })
    // Under its name it is whole: another process may read it at any time.
    writeFileSync(half, Buffer.concat([digestOf(body), body]), { mode: 0o644 })
    renameSync(half, path)
    removeOld(folder)
  } catch {
    // A root file system that is read-only: nothing is kept, and that is no error.
  }
}

function removeOld(folder: string): void {
  const names = readdirSync(folder)
  if (names.length <= maxKept) return
  const files = names.map((name) => {
    const path = join(folder, name)
    return { path, at: statSync(path).mtimeMs }
  })
  for (const { path } of files.toSorted((a, b) => b.at - a.at).slice(maxKept))
    rmSync(path, { force: true })
}

function digestOf(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}
