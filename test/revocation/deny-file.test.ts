import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { withDenyFile } from '../../revocation/deny-file.ts'
import { maxDenyListBytes } from '../../revocation/deny-list.ts'
import { createEmbeddedRevocation } from '../../revocation/embedded.ts'
import type { RevocationFeed } from '../../revocation/feed.ts'
import { manualClock } from '../kit/manual-clock.ts'

const poll = { timeout: 30_000, interval: 20 }
let directory: string
let path: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chaperone-deny-'))
  path = join(directory, 'deny.txt')
})
afterEach(() => rm(directory, { recursive: true, force: true }))

/** A started feed over an embedded one, what it announced, and what it complained of. */
function follow() {
  const clock = manualClock(1_764_000_000_000)
  const { feed: own, committer } = createEmbeddedRevocation({ clock })
  const error = vi.fn<(fields: object, message: string) => void>()
  const log = { info: () => undefined, warn: () => undefined, error }
  const feed = withDenyFile(own, { path, clock, log })
  const announced: string[] = []
  feed.onApplied((records) => announced.push(...records.map(({ subject }) => subject)))
  feed.start()
  const complaints = (): readonly string[] => error.mock.calls.map(([, message]) => message)
  return { feed, committer, clock, announced, complaints }
}

function denies(feed: RevocationFeed, subject: string): boolean {
  return feed.view.find([subject]) !== undefined
}

/** As an editor or `mv` does: whole or not at all. */
async function replace(text: string): Promise<void> {
  await writeFile(`${path}.new`, text)
  await rename(`${path}.new`, path)
}

describe('withDenyFile()', () => {
  test('denies what the file says from the start, and says why', async () => {
    await writeFile(path, 'task:T-1 wrong customer\n')
    const { feed, announced } = follow()
    await using _ = feed
    expect(feed.view.find(['task:T-1'])).toMatchObject({
      rid: expect.stringMatching(/^file-[0-9a-f]{32}$/),
      op: 'revoke',
      reason: 'wrong customer',
      by: 'file',
      expiresAtMs: 0,
    })
    expect(denies(feed, 'task:T-2')).toBe(false)
    expect(announced).toEqual(['task:T-1'])
    expect(feed.status().denyFile).toEqual({ subjects: 1, problems: 0 })
  })

  test('announces a line that comes, once', async () => {
    await writeFile(path, 'task:T-1\n')
    const { feed, announced } = follow()
    await using _ = feed
    await replace('task:T-1 with a reason now\ntask:T-2\n')
    await expect.poll(() => announced, poll).toEqual(['task:T-1', 'task:T-2'])
  })

  test('lets a line that is gone go only when the file rests, and not while it is written anew', async () => {
    await writeFile(path, 'task:T-1\ntask:T-2\n')
    const { feed, clock, announced } = follow()
    await using _ = feed
    // As an editor that empties the file first.
    await writeFile(path, '')
    await writeFile(path, 'task:T-3\n')
    await expect.poll(() => denies(feed, 'task:T-3'), poll).toBe(true)
    // It is looked at some more times; the clock by which it rests stands still.
    await delay(800)
    expect([denies(feed, 'task:T-1'), denies(feed, 'task:T-2')]).toEqual([true, true])
    await writeFile(path, 'task:T-1\ntask:T-3\ntask:T-4\n')
    await expect.poll(() => denies(feed, 'task:T-4'), poll).toBe(true)
    clock.advance(1_000)
    await expect.poll(() => denies(feed, 'task:T-2'), poll).toBe(false)
    expect([denies(feed, 'task:T-1'), denies(feed, 'task:T-3')]).toEqual([true, true])
    // One that comes back is news.
    await replace('task:T-1\ntask:T-2\n')
    await expect.poll(() => announced.at(-1), poll).toBe('task:T-2')
  })

  test('follows the symlink swap of a mounted ConfigMap', async () => {
    for (const [generation, text] of ['task:T-1\n', 'task:T-2\n'].entries()) {
      await mkdir(join(directory, `..${generation}`))
      await writeFile(join(directory, `..${generation}`, 'deny.txt'), text)
    }
    await symlink('..0', join(directory, '..data'))
    await symlink('..data/deny.txt', path)
    const { feed, announced } = follow()
    await using _ = feed
    await symlink('..1', join(directory, '..data_tmp'))
    await rename(join(directory, '..data_tmp'), join(directory, '..data'))
    await expect.poll(() => announced, poll).toEqual(['task:T-1', 'task:T-2'])
  })

  test('a file that is not there denies nothing, is complained of once, and is read when it comes', async () => {
    const { feed, complaints, announced } = follow()
    await using _ = feed
    expect(feed.status().denyFile).toEqual({ subjects: 0, problems: 1 })
    await replace('task:T-1\n')
    await expect.poll(() => announced, poll).toEqual(['task:T-1'])
    expect(complaints()).toEqual([
      `${path}: The file does not exist: what it denied before stays denied`,
    ])
    expect(feed.status().denyFile).toEqual({ subjects: 1, problems: 0 })
  })

  test.each([
    ['is taken away', () => rm(path), 'The file does not exist'],
    [
      'is too large',
      () => replace('#'.repeat(maxDenyListBytes + 1)),
      `The file has more than ${maxDenyListBytes} bytes`,
    ],
    [
      'is not text',
      () => replace('').then(() => writeFile(path, Buffer.of(0xff, 0xfe))),
      'The file is not UTF-8',
    ],
    ['becomes a folder', () => rm(path).then(() => mkdir(path)), 'Expected a regular file'],
  ])('takes nothing back from a file that %s', async (_case, spoil, why) => {
    await writeFile(path, 'task:T-1\n')
    const { feed, clock, complaints } = follow()
    await using _ = feed
    await spoil()
    await expect.poll(() => complaints().at(-1), poll).toContain(why)
    clock.advance(60_000)
    expect(denies(feed, 'task:T-1')).toBe(true)
    expect(feed.status().denyFile).toEqual({ subjects: 1, problems: 1 })
  })

  test('names the place of a bad line, and what can be read is in force', async () => {
    await writeFile(path, '# header\ntsak:T-1 typo\ntask:T-2\n')
    const { feed, complaints } = follow()
    await using _ = feed
    expect(denies(feed, 'task:T-2')).toBe(true)
    expect(complaints()).toEqual([expect.stringContaining(`${path}:2:1 Expected a subject`)])
    expect(feed.status().denyFile).toEqual({ subjects: 1, problems: 1 })
  })

  test('takes nothing back while a line is bad: it may be the one that was meant', async () => {
    await writeFile(path, 'task:T-1\n')
    const { feed, clock } = follow()
    await using _ = feed
    await replace('tsak:T-1\ntask:T-2\n')
    await expect.poll(() => denies(feed, 'task:T-2'), poll).toBe(true)
    clock.advance(60_000)
    await delay(600)
    expect(denies(feed, 'task:T-1')).toBe(true)
    await replace('task:T-2\n')
    await expect
      .poll(() => {
        clock.advance(1_000)
        return denies(feed, 'task:T-1')
      }, poll)
      .toBe(false)
  })

  test('the strictest of file and store counts, and neither takes from the other', async () => {
    await writeFile(path, 'task:T-1\n')
    const { feed, committer, clock } = follow()
    await using _ = feed
    const draft = { reason: 'r', by: 'ops', expiresAtMs: 0 }
    await committer.commit({ ...draft, rid: 'p', op: 'pause', subject: 'task:T-1' })
    expect(feed.view.find(['task:T-1'])).toMatchObject({ op: 'revoke', by: 'file' })
    await committer.commit({ ...draft, rid: 'q', op: 'quarantine', subject: 'task:T-1' })
    expect(feed.view.find(['task:T-1'])).toMatchObject({ op: 'quarantine', rid: 'q' })
    await replace('')
    const subjects = (): number | undefined => {
      clock.advance(1_000)
      return feed.status().denyFile?.subjects
    }
    await expect.poll(subjects, poll).toBe(0)
    expect(feed.view.find(['task:T-1'])).toMatchObject({ rid: 'q' })
  })
})
