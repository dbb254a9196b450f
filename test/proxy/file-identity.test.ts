import { appendFile, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { identifyAll } from '../../proxy/file-identity.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chaperone-identity-'))
  await writeFile(join(folder, 'a.cedar'), 'one')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

describe('identifyAll()', () => {
  test.each(['b.cedar', 'b.test.yaml'])('changes when %s is added or changed', async (name) => {
    const before = identifyAll([folder])
    await writeFile(join(folder, name), 'one')
    const added = identifyAll([folder])
    expect(added).not.toBe(before)
    await appendFile(join(folder, name), ' two')
    expect(identifyAll([folder])).not.toBe(added)
  })

  test('stays when a log grows in the directory, or another file takes its place by a rename', async () => {
    const before = identifyAll([folder])
    await appendFile(join(folder, 'audit.ndjson'), '{}\n')
    await writeFile(join(folder, 'snapshot.json.next'), '{}')
    await rename(join(folder, 'snapshot.json.next'), join(folder, 'snapshot.json'))
    expect(identifyAll([folder])).toBe(before)
  })

  test('changes when a file that is named itself does, whatever its name', async () => {
    const path = join(folder, 'tools.json')
    const before = identifyAll([path])
    await writeFile(path, '{}')
    expect(identifyAll([path])).not.toBe(before)
  })
})
