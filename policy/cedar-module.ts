import { createHash } from 'node:crypto'
// oxlint-disable-next-line no-restricted-imports -- the engine's own code, read as an import would read it
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

let bytes: Buffer | undefined
let compiled: WebAssembly.Module | undefined

/** Cedar as published, compiled at the first call and shared by all instances of this thread. */
export function cedarModule(): WebAssembly.Module {
  compiled ??= new WebAssembly.Module(cedarBytes())
  bytes = undefined
  return compiled
}

/** Of the code of Cedar, hex: what another one built is not for this one. */
export function cedarSha256(): string {
  return createHash('sha256').update(cedarBytes()).digest('hex')
}

/** Read once until it is compiled; then the module has it. */
function cedarBytes(): Buffer {
  bytes ??= readFileSync(wasmPath())
  return bytes
}

function wasmPath(): string {
  const glue = createRequire(import.meta.url).resolve('@cedar-policy/cedar-wasm/nodejs')
  return join(dirname(glue), 'cedar_wasm_bg.wasm')
}
