import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { loadConfig } from '../../config/load.ts'
import { identifyAll } from '../../proxy/file-identity.ts'
import { watchConfig, type ReloadResult, type WatchConfigOptions } from '../../proxy/reload.ts'

const example = readFileSync(new URL('../../examples/chaperone.yaml', import.meta.url), 'utf8')
const changed = example.replace('drain: 20s', 'drain: 30s')
const wait = { timeout: 30_000, interval: 20 }

let directory = ''
let path = ''
let results: ReloadResult[] = []
let drains: number[] = []
let errors: string[] = []
let watching: AsyncDisposable | undefined

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'chaperone-'))
  path = join(directory, 'chaperone.yaml')
  results = []
  drains = []
  errors = []
  writeFileSync(path, example)
})

afterEach(async () => {
  await watching?.[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
})

function watch(options: Partial<WatchConfigOptions> = {}): AsyncDisposable {
  watching = watchConfig({
    path,
    log: { info: () => {}, error: (_, message) => errors.push(message) },
    apply: async ({ config }) => {
      drains.push(config.shutdown.drain)
    },
    onResult: (result) => results.push(result),
    ...options,
  })
  return watching
}

describe('watchConfig()', () => {
  test('watchConfig() applies the whole new configuration when the file changes', async () => {
    watch()
    writeFileSync(path, changed)
    await vi.waitFor(() => expect(results).toEqual(['applied']), wait)
    expect(drains).toEqual([30_000])
  })

  test('watchConfig() keeps the old one and logs each problem when the new one is bad', async () => {
    watch()
    writeFileSync(
      path,
      example.replace('drain: 20s', 'drain: 20').replace('level: info', 'level: x'),
    )
    await vi.waitFor(() => expect(results).toEqual(['rejected']), wait)
    expect(drains).toEqual([])
    expect(errors).toEqual([
      expect.stringMatching(/chaperone\.yaml:\d+:10 shutdown\.drain: Expected a duration/),
      expect.stringMatching(/chaperone\.yaml:\d+:10 log\.level: Expected "debug"/),
    ])
  })

  test('watchConfig() rejects a file that vanishes and applies the next one', async () => {
    watch()
    rmSync(path)
    await vi.waitFor(() => expect(results).toEqual(['rejected']), wait)
    expect(errors).toEqual([expect.stringContaining('The file does not exist')])
    writeFileSync(path, changed)
    await vi.waitFor(() => expect(results).toEqual(['rejected', 'applied']), wait)
  })

  test('watchConfig() sees a mounted file change by a symlink swap', async () => {
    for (const [generation, text] of [
      ['one', example],
      ['two', changed],
    ] as const) {
      mkdirSync(join(directory, generation))
      writeFileSync(join(directory, generation, 'chaperone.yaml'), text)
    }
    rmSync(path)
    symlinkSync('one', join(directory, 'current'))
    symlinkSync(join('current', 'chaperone.yaml'), path)
    watch()
    symlinkSync('two', join(directory, 'next'))
    renameSync(join(directory, 'next'), join(directory, 'current'))
    await vi.waitFor(() => expect(drains).toEqual([30_000]), wait)
  })

  test('watchConfig() applies on SIGHUP also when the text is the same', async () => {
    watch({ sha256: shaOf(path) })
    await vi.waitFor(() => expect(results).toEqual(['unchanged']), wait)
    process.kill(process.pid, 'SIGHUP')
    await vi.waitFor(() => expect(results).toEqual(['unchanged', 'applied']), wait)
  })

  test('watchConfig() notices what was written before it started when it knows what is in force', async () => {
    const sha256 = shaOf(path)
    writeFileSync(path, changed)
    watch({ sha256 })
    await vi.waitFor(() => expect(drains).toEqual([30_000]), wait)
  })

  test('watchConfig() reports unchanged when the file is written with the same text', async () => {
    watch()
    writeFileSync(path, changed)
    await vi.waitFor(() => expect(results).toEqual(['applied']), wait)
    writeFileSync(path, changed)
    await vi.waitFor(() => expect(results).toEqual(['applied', 'unchanged']), wait)
    expect(drains).toEqual([30_000])
  })

  test('watchConfig() keeps the old one when applying fails, and tries again on SIGHUP', async () => {
    let isBroken = true
    watch({
      apply: async ({ config }) => {
        if (isBroken) throw new Error('no such policy directory')
        drains.push(config.shutdown.drain)
      },
    })
    writeFileSync(path, changed)
    await vi.waitFor(() => expect(results).toEqual(['rejected']), wait)
    expect(errors).toEqual(['configuration refused, the old one stays'])
    isBroken = false
    process.kill(process.pid, 'SIGHUP')
    await vi.waitFor(() => expect(results).toEqual(['rejected', 'applied']), wait)
    expect(drains).toEqual([30_000])
  })

  test('watchConfig() applies one at a time, and many requests meanwhile as one', async () => {
    let running = 0
    let most = 0
    const applied = vi.fn<WatchConfigOptions['apply']>(async () => {
      most = Math.max(most, ++running)
      await delay(300)
      running--
    })
    watch({ apply: applied })
    process.emit('SIGHUP')
    await vi.waitFor(() => expect(running).toBe(1), wait)
    for (let count = 0; count < 20; count++) process.emit('SIGHUP')
    await vi.waitFor(() => expect(results).toEqual(['applied', 'applied']), wait)
    await delay(300)
    expect(results).toEqual(['applied', 'applied'])
    expect(applied).toHaveBeenCalledTimes(2)
    expect(most).toBe(1)
  })

  test('watchConfig() applies when a file of a watched directory changes, comes or goes', async () => {
    const policies = join(directory, 'policies')
    mkdirSync(policies)
    let identity = identifyAll([policies])
    watch({
      watched: () => ({ paths: [policies], identity }),
      apply: async () => {
        identity = identifyAll([policies])
      },
    })
    await delay(2500)
    expect(results).toEqual([])
    const steps = [
      () => writeFileSync(join(policies, 'a.cedar'), 'one'),
      () => writeFileSync(join(policies, 'a.cedar'), 'another'),
      () => rmSync(join(policies, 'a.cedar')),
      () => rmSync(policies, { recursive: true }),
    ]
    for (const [index, step] of steps.entries()) {
      step()
      await vi.waitFor(() => expect(results).toHaveLength(index + 1), wait)
    }
    expect(results).toEqual(['applied', 'applied', 'applied', 'applied'])
  })

  test('watchConfig() sees what changed since the policies in force were read, and tries a bad one once', async () => {
    const policies = join(directory, 'policies')
    mkdirSync(policies)
    const identity = identifyAll([policies])
    writeFileSync(join(policies, 'a.cedar'), 'written after they were read')
    watch({
      watched: () => ({ paths: [policies], identity }),
      apply: () => Promise.reject(new Error('bad policies')),
    })
    await vi.waitFor(() => expect(results).toEqual(['rejected']), wait)
    await delay(2500)
    expect(results).toEqual(['rejected'])
  })

  test('watchConfig() applies the same text again after a refusal', async () => {
    let isBroken = true
    watch({
      sha256: shaOf(path),
      apply: async () => {
        if (isBroken) throw new Error('no such policy directory')
      },
    })
    await vi.waitFor(() => expect(results).toEqual(['unchanged']), wait)
    writeFileSync(path, changed)
    await vi.waitFor(() => expect(results).toEqual(['unchanged', 'rejected']), wait)
    isBroken = false
    writeFileSync(path, example)
    await vi.waitFor(() => expect(results).toEqual(['unchanged', 'rejected', 'applied']), wait)
  })

  test('watchConfig() waits for the reload under way when disposed, and leaves no listener', async () => {
    const before = process.listenerCount('SIGHUP')
    let isDone = false
    const disposable = watch({
      apply: async () => {
        drains.push(0)
        await delay(200)
        isDone = true
      },
    })
    process.emit('SIGHUP')
    await vi.waitFor(() => expect(drains).toEqual([0]), wait)
    await disposable[Symbol.asyncDispose]()
    expect(isDone).toBe(true)
    expect(process.listenerCount('SIGHUP')).toBe(before)
  })
})

function shaOf(file: string): string {
  const loaded = loadConfig(file)
  if (!loaded.ok) throw new Error('the example is not valid')
  return loaded.sha256
}
