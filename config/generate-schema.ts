import { readFileSync, writeFileSync } from 'node:fs'
import { configJsonSchema } from './json-schema.ts'

/** `node config/generate-schema.ts` writes the JSON Schema; with `--check` it ends with 1 when the file is not current. */
const file = new URL('chaperone.schema.json', import.meta.url)
const current = `${JSON.stringify(configJsonSchema(), null, 2)}\n`

if (!process.argv.includes('--check')) {
  writeFileSync(file, current)
} else if (read() !== current) {
  process.stderr.write('config/chaperone.schema.json is old: run node config/generate-schema.ts\n')
  process.exitCode = 1
}

function read(): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}
