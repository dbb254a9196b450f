import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Clock } from '../../policy/types.ts'
import type { RevocationDraft, RevocationFeed } from '../../revocation/feed.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { createRedisFeed, type FeedLog } from '../../revocation/redis-feed.ts'
import { signLift, verifierOf } from '../kit/lifts.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'
import { names, signingKey, type SigningKey } from '../kit/tokens.ts'

const clock: Clock = { now: () => Date.now(), monotonic: () => performance.now() }
const within = { timeout: 30_000, interval: 20 }
let server: RedisProcess
let key: SigningKey
let directory: string
let file: string

beforeEach(async () => {
  server = await startRedis()
  key = await signingKey()
  directory = await mkdtemp(join(tmpdir(), 'chaperone-test-'))
  file = join(directory, 'known.json')
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
  await rm(directory, { recursive: true })
})

const scope = () => ({
  redis: { url: server.url, prefix: 'chaperone' },
  trustDomain: names.trustDomain,
  clock,
})

function startFeed(error: FeedLog['error'] = () => undefined): RevocationFeed {
  const log: FeedLog = { info: () => undefined, warn: () => undefined, error }
  const verifyLift = verifierOf(key)
  const feed = createRedisFeed({
    ...scope(),
    syncIntervalMs: 50,
    log,
    verifyLift,
    snapshotFile: file,
  })
  feed.start()
  return feed
}

async function commit(members: Pick<RevocationDraft, 'rid' | 'subject'>): Promise<void> {
  await using committer = createRedisCommitter(scope())
  await committer.commit({ op: 'pause', reason: 'odd', by: 'ops', expiresAtMs: 0, ...members })
}

async function lift(rid: string): Promise<void> {
  await using committer = createRedisCommitter(scope())
  const compact = signLift(key, { claims: { jti: 'l1', lifts: [rid] } })
  await committer.commitLift({ rid: 'l1', lifts: [rid], by: '', reason: '', atMs: 0, compact })
}

describe('revocation.snapshotFile', () => {
  test('what is known refuses before Redis has answered, is not fresh, and heals an emptied store', async () => {
    {
      await using feed = startFeed()
      await commit({ rid: 'r1', subject: 'task:T-1' })
      await commit({ rid: 'r2', subject: 'task:T-2' })
      await lift('r2')
      await vi.waitFor(() => expect(feed.view.epoch).toMatch(/^3:/), within)
      // Without waiting for the end: a sidecar that is killed has it too.
      await vi.waitFor(async () => expect(await readFile(file, 'utf8')).toContain('r1'), within)
    }
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(await readdir(directory)).toEqual(['known.json'])

    await server.kill()
    await using again = startFeed()
    await vi.waitFor(() => expect(again.view.find(['task:T-1'])?.rid).toBe('r1'), within)
    expect(again.view.find(['task:T-2'])).toBeUndefined()
    expect(again.view.ageMs(performance.now())).toBe(Infinity)
    expect(again.view.epoch).toBe('-')

    await server.restart()
    await again.ready
    await vi.waitFor(() => expect(again.view.epoch).toMatch(/^3:/), within)
    await using committer = createRedisCommitter({ ...scope(), verifyLift: verifierOf(key) })
    expect((await committer.list(10)).map(({ rid }) => rid)).toEqual(['r1'])
  })

  test.each([
    ['not JSON', '{"version":1,"secret-'],
    ['no snapshot', '{"version":2}'],
    ['of another trust domain', '{"version":1,"trustDomain":"other.org","records":[],"lifts":[]}'],
    [
      'with a record that cannot be read',
      `{"version":1,"trustDomain":"${names.trustDomain}","records":[{"rid":"r1"}],"lifts":[]}`,
    ],
  ])('a file that is %s is logged without its text, ignored, and replaced', async (_case, text) => {
    await writeFile(file, text)
    const error = vi.fn<FeedLog['error']>()
    await using feed = startFeed(error)
    await feed.ready
    expect(error).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({ path: file }),
      'Ignored the snapshot of the revocations',
    )
    expect(JSON.stringify(error.mock.calls)).not.toContain('secret-')
    await commit({ rid: 'r9', subject: 'task:T-9' })
    await vi.waitFor(async () => expect(await readFile(file, 'utf8')).toContain('r9'), within)
  })

  test('a forged lift in the file lifts nothing', async () => {
    const stranger = await signingKey('ES256', { kid: key.kid })
    const record = { rid: 'r1', op: 'revoke', subject: 'task:T-1', reason: '', by: '' }
    await writeFile(
      file,
      JSON.stringify({
        version: 1,
        trustDomain: names.trustDomain,
        records: [{ ...record, atMs: 1, expiresAtMs: 0, epoch: 1 }],
        lifts: [signLift(stranger)],
      }),
    )
    await using feed = startFeed()
    await feed.ready
    expect(feed.view.find(['task:T-1'])?.rid).toBe('r1')
    expect(feed.status().liftsIgnored).toBe(1)
  })

  test('a file that cannot be written is logged once, and the feed goes on', async () => {
    file = join(directory, 'no folder', 'known.json')
    const error = vi.fn<FeedLog['error']>()
    await using feed = startFeed(error)
    await commit({ rid: 'r1', subject: 'task:T-1' })
    await vi.waitFor(
      () =>
        expect(error).toHaveBeenCalledWith(
          expect.objectContaining({ code: 'ENOENT' }),
          'Cannot write the snapshot',
        ),
      within,
    )
    expect(feed.view.find(['task:T-1'])?.rid).toBe('r1')
  })
})
