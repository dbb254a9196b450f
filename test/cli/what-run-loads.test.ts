import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const run = new URL('../../dist/cli/run.js', import.meta.url).href

/** Memory and start time of every sidecar: one careless import brings tens of megabytes back. */
test('`chaperone run` loads no HTTP client that comes with Node, no tracing, and of undici a part', async () => {
  const script = `
    import { createRequire } from 'node:module'
    await import(${JSON.stringify(run)})
    const files = Object.keys(createRequire(import.meta.url).cache)
    console.log(JSON.stringify([...process.moduleLoadList, ...files]))`
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--input-type=module',
    '--eval',
    script,
  ])
  const loaded: readonly string[] = JSON.parse(stdout)
  expect(loaded.some((name) => name.includes('/undici/lib/dispatcher/dispatcher.js'))).toBe(true)
  const unwanted = /internal\/deps\/undici|opentelemetry|undici\/lib\/web|defaultMetrics|ioredis/
  expect(loaded.filter((name) => unwanted.test(name))).toEqual([])
})
