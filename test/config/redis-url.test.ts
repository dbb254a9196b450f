import { describe, expect, test } from 'vitest'
import { parseRedisUrl } from '../../config/redis-url.ts'

const at = (host: string, port: number) => ({ host, port })

describe('parseRedisUrl()', () => {
  test.each([
    ['redis://r', { kind: 'server', tls: false, address: at('r', 6379), db: 0 }],
    ['rediss://r.svc:1/3', { kind: 'server', tls: true, address: at('r.svc', 1), db: 3 }],
    ['redis://[::1]:6380', { kind: 'server', tls: false, address: at('::1', 6380), db: 0 }],
    [
      'redis-sentinel://a:1,b/main',
      { kind: 'sentinel', tls: false, hosts: [at('a', 1), at('b', 26_379)], master: 'main', db: 0 },
    ],
    [
      'rediss-sentinel://[fe80::1]:2/main/4',
      { kind: 'sentinel', tls: true, hosts: [at('fe80::1', 2)], master: 'main', db: 4 },
    ],
    [
      'rediss-cluster://a:7000,b',
      { kind: 'cluster', tls: true, hosts: [at('a', 7000), at('b', 6379)] },
    ],
  ])('reads %s', (url, target) => expect(parseRedisUrl(url)).toEqual(target))

  test.each([
    ['a user', 'redis://ops@r'],
    ['a password', 'redis-sentinel://:secret@a/main'],
    ['two servers', 'redis://a,b'],
    ['no master', 'redis-sentinel://a:1,b:2'],
    ['a database of a cluster', 'redis-cluster://a/1'],
    ['a port of no server', 'redis://r:0'],
    ['a port beyond 65535', 'redis-cluster://a,b:70000'],
    ['a query', 'redis-sentinel://a?master=main'],
    ['another scheme', 'http://a'],
    ['seventeen hosts', `redis-cluster://${Array(17).fill('a').join(',')}`],
  ])('does not read %s', (_what, url) => expect(parseRedisUrl(url)).toBeUndefined())
})
