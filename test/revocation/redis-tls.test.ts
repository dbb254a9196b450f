import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { RedisConfig } from '../../config/schema.ts'
import { createRedisCommitter } from '../../revocation/redis-committer.ts'
import { startRedis, type RedisProcess } from '../kit/redis.ts'
import { startSentinelSet } from '../kit/redis-sentinel.ts'
import {
  localhostCertFile,
  localhostKeyFile,
  redisTls,
  strangerCertFile,
  strangerKeyFile,
} from '../kit/tls.ts'
import { untilTrue } from '../kit/until-true.ts'
import { temporaryFile } from '../kit/world.ts'
import {
  Acknowledged,
  draftOf,
  findDisagreements,
  scopeOf,
  startWatchedFeed,
} from '../kit/watched-feed.ts'

const { args: files, options: tls } = redisTls
const client = { certFile: localhostCertFile, keyFile: localhostKeyFile }

type Access = Partial<Omit<RedisConfig, 'url' | 'prefix'>>

let open: RedisProcess
let mutual: RedisProcess
beforeAll(async () => {
  const settings = [...files, '--bind', '127.0.0.1 127.0.0.2']
  open = await startRedis([...settings, '--tls-auth-clients', 'no'], tls)
  mutual = await startRedis([...settings, '--tls-auth-clients', 'yes'], tls)
})
afterAll(async () => {
  await open[Symbol.asyncDispose]()
  await mutual[Symbol.asyncDispose]()
})

function scope(url: string, access: Access) {
  const at = scopeOf(url)
  return { ...at, redis: { ...at.redis, ...access } }
}

/** What the feed says first: of why it cannot follow, or nothing when it can. */
async function complaint(url: string, access: Access): Promise<string> {
  await using watched = startWatchedFeed(scope(url, access), new Acknowledged())
  const { ageMs, lines } = watched
  await untilTrue(async () => lines.length > 0 || ageMs() !== Infinity, 'it is fresh, or complains')
  return lines[0] ?? ''
}

describe('openRedis() over TLS', () => {
  test('works with the authority of the server', async () => {
    expect(await complaint(open.url, { caFile: localhostCertFile })).toBe('')
    expect(
      await complaint(open.url.replace('127.0.0.1', 'localhost'), { caFile: localhostCertFile }),
    ).toBe('')
  })

  test('works with a client certificate that the server asks for', async () => {
    expect(await complaint(mutual.url, { caFile: localhostCertFile, ...client })).toBe('')
  })

  test.each<[string, () => string, Access, RegExp]>([
    ['no authority', () => open.url, {}, /DEPTH_ZERO_SELF_SIGNED_CERT.*self-signed certificate/],
    [
      'the authority of another',
      () => open.url,
      { caFile: strangerCertFile },
      /DEPTH_ZERO_SELF_SIGNED_CERT.*self-signed certificate/,
    ],
    [
      'a name that is not in the certificate',
      () => open.url.replace('127.0.0.1', '127.0.0.2'),
      { caFile: localhostCertFile },
      /ERR_TLS_CERT_ALTNAME_INVALID.*127\.0\.0\.2 is not in the cert's list/,
    ],
    [
      'no client certificate',
      () => mutual.url,
      { caFile: localhostCertFile },
      /certificate[ _]required/i,
    ],
    [
      'a client certificate of another authority',
      () => mutual.url,
      { caFile: localhostCertFile, certFile: strangerCertFile, keyFile: strangerKeyFile },
      /unknown[ _]ca/i,
    ],
    [
      'a server without TLS',
      () => open.url.replace('rediss', 'redis'),
      {},
      /closed|ECONNRESET|timed out/i,
    ],
  ])('names the cause when there is %s', async (_what, url, access, cause) => {
    expect(await complaint(url(), access)).toMatch(cause)
  })

  test('a commit that could not connect names the cause too', async () => {
    await using committer = createRedisCommitter(scope(open.url, {}))
    await expect(committer.commit(draftOf('task:T-1'))).rejects.toThrow(
      /did not answer within \d+ ms: self-signed certificate/,
    )
  })

  test('follows the master that Sentinels put in place of one that was killed', async () => {
    await using set = await startSentinelSet({ tls: true })
    expect(set.url).toMatch(/^rediss-sentinel:/)
    const at = scope(set.url, { caFile: localhostCertFile })
    const acknowledged = new Acknowledged()
    await using watched = startWatchedFeed(at, acknowledged)
    await watched.feed.ready
    await acknowledged.revoke(at, 'task:before')
    await watched.has('task:before')
    const old = await set.master()
    await old.kill()
    await acknowledged.revoke(at, 'task:after')
    await set.untilMasterIsNot(old.port)
    await watched.has('task:after')
    await watched.fresh()
    expect(await findDisagreements(watched, { at, acknowledged })).toEqual([])
  }, 120_000)

  test('asks a Sentinel with its own password, and its master with the own one', async () => {
    const settings = [...files, '--tls-auth-clients', 'no', '--requirepass']
    await using master = await startRedis([...settings, 'of-the-master'], tls)
    const configuration = `sentinel monitor main 127.0.0.1 ${master.port} 1`
    await using sentinel = await startRedis(['--sentinel', ...settings, 'of-the-sentinel'], {
      ...tls,
      configuration,
    })
    const url = sentinel.url.replace('rediss:', 'rediss-sentinel:') + '/main'
    const access = {
      caFile: localhostCertFile,
      passwordFile: await temporaryFile('master', 'of-the-master\n'),
    }
    expect(await complaint(url, access)).toMatch(/Cannot find the master: .*NOAUTH/)
    const sentinelPasswordFile = await temporaryFile('sentinel', 'of-the-sentinel\n')
    expect(await complaint(url, { ...access, sentinelPasswordFile })).toBe('')
    const rights = ['-@all', '+auth', '+sentinel|get-master-addr-by-name']
    const auth = ['--no-auth-warning', '-a', 'of-the-sentinel']
    await sentinel.cli(...auth, 'ACL', 'SETUSER', 'asker', 'on', '>of-the-asker', ...rights)
    const asker = await temporaryFile('asker', 'of-the-asker\n')
    const named = { sentinelUsername: 'asker', sentinelPasswordFile: asker }
    expect(await complaint(url, { ...access, ...named })).toBe('')
    const swapped = { ...access, sentinelPasswordFile: access.passwordFile }
    expect(await complaint(url, swapped)).toMatch(/Cannot find the master: .*WRONGPASS/)
  })
})
