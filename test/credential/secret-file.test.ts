import { mkdtemp, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openSecretFile } from '../../credential/secret-file.ts'
import { manualClock, type ManualClock } from '../kit/manual-clock.ts'

let folder: string
let path: string
let clock: ManualClock
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'secret-'))
  path = join(folder, 'key')
  clock = manualClock()
})
afterEach(() => rm(folder, { recursive: true }))

describe('openSecretFile()', () => {
  test.each([
    ['key', 'key'],
    ['key\n', 'key'],
    ['key\r\n', 'key'],
    ['key\n\n', 'key\n'],
    [' key ', ' key '],
  ])('reads %j as %j when the file ends so', async (text, secret) => {
    await writeFile(path, text)
    expect(openSecretFile(path, clock).read()).toBe(secret)
  })

  test('takes the new secret within a second when its folder is swapped behind a symlink', async () => {
    for (const [name, secret] of [
      ['v1', 'secret-1'],
      ['v2', 'secret-2'],
    ] as const) {
      await mkdir(join(folder, name))
      await writeFile(join(folder, name, 'key'), secret)
    }
    await symlink('v1', join(folder, 'data'))
    const file = openSecretFile(join(folder, 'data', 'key'), clock)
    expect(file.read()).toBe('secret-1')
    await symlink('v2', join(folder, 'next'))
    await rename(join(folder, 'next'), join(folder, 'data'))
    clock.advance(999)
    expect(file.read()).toBe('secret-1')
    clock.advance(1)
    expect(file.read()).toBe('secret-2')
  })

  test.each([
    ['missing', () => rm(path)],
    ['empty', () => writeFile(path, '\n')],
    ['too large', () => writeFile(path, 'x'.repeat(65_537))],
  ])('refuses every time once the file is %s, and heals at once', async (_, spoil) => {
    await writeFile(path, 'secret')
    const file = openSecretFile(path, clock)
    expect(file.read()).toBe('secret')
    clock.advance(1_000)
    await spoil()
    for (let time = 0; time < 3; time += 1)
      expect(() => file.read()).toThrow(
        expect.objectContaining({ code: 'ERR_CREDENTIAL_UNAVAILABLE' }),
      )
    await writeFile(path, 'healed')
    expect(file.read()).toBe('healed')
  })

  test('never serves a secret from before when the file could not be read in between', async () => {
    await writeFile(path, 'secret')
    const file = openSecretFile(path, clock)
    file.read()
    clock.advance(1_000)
    await rm(path)
    await mkdir(path)
    expect(() => file.read()).toThrow('cannot be read')
    expect(() => file.read()).toThrow('cannot be read')
  })
})
