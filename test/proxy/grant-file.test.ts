import { mkdtemp, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openGrantFile } from '../../proxy/grant-file.ts'
import { manualClock, type ManualClock } from '../kit/manual-clock.ts'

let folder: string
let path: string
let clock: ManualClock
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'grant-'))
  path = join(folder, 'grant')
  clock = manualClock()
})
afterEach(() => rm(folder, { recursive: true }))

describe('openGrantFile()', () => {
  test('gives the grant without the white space around it', async () => {
    await writeFile(path, ' a.b.c\n')
    expect(openGrantFile(path, clock).compact()).toBe('a.b.c')
  })

  test('takes the new grant within a second when its folder is swapped behind a symlink', async () => {
    for (const name of ['v1', 'v2']) {
      await mkdir(join(folder, name))
      await writeFile(join(folder, name, 'grant'), name)
    }
    await symlink('v1', join(folder, 'data'))
    const file = openGrantFile(join(folder, 'data', 'grant'), clock)
    expect(file.compact()).toBe('v1')
    await symlink('v2', join(folder, 'next'))
    await rename(join(folder, 'next'), join(folder, 'data'))
    clock.advance(999)
    expect(file.compact()).toBe('v1')
    clock.advance(1)
    expect(file.compact()).toBe('v2')
  })

  test.each([
    ['removed', () => rm(path)],
    ['a folder', () => rm(path).then(() => mkdir(path))],
    ['larger than 16 KiB', () => writeFile(path, 'x'.repeat(16_385))],
  ])('has no grant while the file is %s, and has one again after it', async (_, spoil) => {
    await writeFile(path, 'first')
    const file = openGrantFile(path, clock)
    expect(file.compact()).toBe('first')
    await spoil()
    for (let second = 0; second < 3; second += 1) {
      clock.advance(1_000)
      expect(file.compact()).toBeUndefined()
    }
    await rm(path, { recursive: true, force: true })
    await writeFile(path, 'second')
    clock.advance(1_000)
    expect(file.compact()).toBe('second')
  })

  test('has no grant when the file was never there, and has one once it comes', async () => {
    const file = openGrantFile(path, clock)
    expect(file.compact()).toBeUndefined()
    await writeFile(path, 'late')
    clock.advance(1_000)
    expect(file.compact()).toBe('late')
  })
})
