// oxlint-disable-next-line no-restricted-imports -- the engine's own code, read as an import would read it
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

let compiled: WebAssembly.Module | undefined

/** Cedar as published, compiled at the first call and shared by all instances of this thread. */
export function cedarModule(): WebAssembly.Module {
  compiled ??= new WebAssembly.Module(readFileSync(wasmPath()))
  return compiled
}

function wasmPath(): string {
  const glue = createRequire(import.meta.url).resolve('@cedar-policy/cedar-wasm/nodejs')
  return join(dirname(glue), 'cedar_wasm_bg.wasm')
}
