import { parse } from 'valibot'
import { describe, expect, test } from 'vitest'
import { configSchema, type Config } from '../../config/schema.ts'
import { compileRoutes, matchRoute, RouteError } from '../../proxy/route.ts'

const upstreams = [
  { name: 'api', url: 'https://api.example.org', credential: { none: true } },
  { name: 'versioned', url: 'https://api.example.org/v2/', credential: { none: true } },
]

function config(
  routes: readonly unknown[],
  options: { readonly unsafeNonLoopback?: boolean; readonly upstreams?: readonly unknown[] } = {},
): Config {
  const { unsafeNonLoopback = false } = options
  return parse(configSchema, {
    version: 1,
    trustDomain: 'example.org',
    listen: { unsafeNonLoopback },
    identity: { trustBundles: [{ trustDomain: 'example.org', file: 'bundle.json' }] },
    approvers: [{ iss: 'https://approver.example.org', jwks: 'approver.json' }],
    revocation: { source: 'embedded' },
    upstreams: options.upstreams ?? upstreams,
    routes,
  })
}

const table = compileRoutes(
  config([
    { prefix: '/git', upstream: 'api' },
    { prefix: '/git/hub', upstream: 'versioned' },
    { host: 'api.localhost:15080', upstream: 'versioned' },
    { host: 'tools.example.org', upstream: 'api' },
  ]),
)
const ours = '127.0.0.1:15080'

describe('matchRoute()', () => {
  test.each([
    [ours, '/git/x', '/git', '/x', undefined],
    [ours, '/git', '/git', '/', undefined],
    [ours, '/git/', '/git', '/', undefined],
    [ours, '/git/hub', '/git/hub', '/v2', undefined],
    [ours, '/git/hub/', '/git/hub', '/v2/', undefined],
    [ours, '/git/hubs', '/git', '/hubs', undefined],
    [ours, '/git/hub/a%20b/', '/git/hub', '/v2/a%20b/', undefined],
    [ours, '/t/task-1/git/x', '/git', '/x', 'task-1'],
    ['API.localhost:15080', '/x', 'api.localhost:15080', '/v2/x', undefined],
    ['api.localhost:15080', '/t/task-1', 'api.localhost:15080', '/v2', 'task-1'],
    ['tools.example.org', '/git/x', 'tools.example.org', '/git/x', undefined],
    ['tools.example.org', '/', 'tools.example.org', '/', undefined],
  ])('finds the upstream path of %s%s', (host, path, name, upstreamPath, txn) => {
    expect(matchRoute(table, { host, path })).toMatchObject({ route: { name }, upstreamPath, txn })
  })

  test.each([
    '127.0.0.1',
    '127.9.9.9:1',
    '[::1]:15080',
    'localhost',
    'LOCALHOST:80',
    'a.b.localhost',
  ])('takes a prefix route under Host %s', (host) => {
    expect(matchRoute(table, { host, path: '/git/x' })).toMatchObject({ upstreamPath: '/x' })
  })

  test.each([
    'evil.example',
    'localhost.evil.example',
    'evillocalhost',
    '127.0.0.1.evil.example',
    '127.1',
    '127.evil.example',
    '10.0.0.5:15080',
    '[::2]',
    'localhost.',
    'tools.example.org:15080',
    '',
  ])('refuses Host "%s", which may be a rebound name', (host) => {
    expect(matchRoute(table, { host, path: '/git/x' })).toMatchObject({
      code: 'request-refused',
      detail: 'route: Host is not ours',
    })
  })

  test('takes any IP address, but no other name, when the listener is not bound to loopback', () => {
    const open = compileRoutes(
      config([{ prefix: '/git', upstream: 'api' }], { unsafeNonLoopback: true }),
    )
    expect(matchRoute(open, { host: '10.0.0.5:15080', path: '/git' })).toMatchObject({
      txn: undefined,
    })
    expect(matchRoute(open, { host: 'evil.example', path: '/git' })).toMatchObject({
      detail: 'route: Host is not ours',
    })
  })

  test.each(['/gitx', '/other', '/', '/t/task-1'])('refuses %s, which no route covers', (path) => {
    expect(matchRoute(table, { host: ours, path })).toMatchObject({
      detail: 'route: no route of this path',
    })
  })

  test.each(['/t/', '/t//git', '/t/.../git', '/t/a%20b/git', `/t/${'a'.repeat(129)}/git`])(
    'refuses the malformed task of %s',
    (path) => {
      expect(matchRoute(table, { host: ours, path })).toMatchObject({
        detail: 'route: the task prefix is malformed',
      })
    },
  )
})

describe('compileRoutes()', () => {
  test.each([
    [
      'stands twice',
      [
        { prefix: '/a', upstream: 'api' },
        { prefix: '/a', upstream: 'versioned' },
      ],
    ],
    ['kept for tasks', [{ prefix: '/t', upstream: 'api' }]],
    ['kept for tasks', [{ prefix: '/t/a', upstream: 'api' }]],
    ['no upstream has the name', [{ prefix: '/a', upstream: 'gone' }]],
  ])('throws "%s" for %j', (message, routes) => {
    expect(() => compileRoutes(config(routes))).toThrow(RouteError)
    expect(() => compileRoutes(config(routes))).toThrow(message)
  })

  test('throws when the base path of an upstream has two readings', () => {
    const bad = [{ ...upstreams[0], url: 'https://api.example.org/a%2fb' }]
    expect(() =>
      compileRoutes(config([{ prefix: '/a', upstream: 'api' }], { upstreams: bad })),
    ).toThrow('encoded delimiter')
  })
})
