import { describe, expect, test } from 'vitest'
import { findApiOperation } from '../../policy/api-operations.ts'
import { readOpenApi, type OpenApiResult } from '../../policy/openapi.ts'
import type { Operation } from '../../policy/types.ts'
import { http, websocket } from '../kit/decide-input.ts'

const inPath = (name: string, type?: unknown): object => ({
  name,
  in: 'path',
  required: true,
  ...(type !== undefined && { schema: { type } }),
})

function read(paths: unknown, more: object = {}, basePath: string = ''): OpenApiResult {
  return readOpenApi({ openapi: '3.1.0', paths, ...more }, { basePath })
}

/** What a request to an upstream with these paths asks for. */
function ask(paths: unknown, operation: Operation, more: object = {}): unknown {
  const document = read(paths, more)
  if (!document.ok) throw new Error(JSON.stringify(document.findings))
  return findApiOperation({ name: 'pets', operations: document.operations }, operation)
}

const none = { called: 'undescribed', typed: {} }
const named = (name: string, typed: object = {}): object => ({
  called: `pets/${name}`,
  typed: { [`pets/${name}`]: typed },
})

const pets = {
  '/pets': { get: { operationId: 'list' }, post: {} },
  '/pets/{id}': {
    parameters: [inPath('id', 'integer')],
    get: { operationId: 'get' },
    delete: { operationId: 'remove', parameters: [inPath('id', 'string')] },
  },
  '/pets/mine': { get: { operationId: 'mine' } },
  '/{kind}/{id}': { get: { operationId: 'any', parameters: [inPath('kind'), inPath('id')] } },
  '/files/{name}.json': { get: { operationId: 'file', parameters: [inPath('name')] } },
  '/ops/{id}:cancel': { post: { operationId: 'cancel', parameters: [inPath('id')] } },
  'x-note': 1,
}

describe('findApiOperation()', () => {
  test.each<[string, string, object]>([
    ['GET', '/pets', named('list')],
    ['POST', '/pets', named('POST /pets')],
    ['GET', '/pets/7', named('get', { id: 7 })],
    ['GET', '/pets/-7', named('get', { id: -7 })],
    ['DELETE', '/pets/7', named('remove', { id: '7' })],
    ['DELETE', '/pets/%C3%A9%20x', named('remove', { id: 'é x' })],
    ['GET', '/pets/mine', named('mine')],
    ['GET', '/files/a.b.json', named('file', { name: 'a.b' })],
    ['GET', '/files/.json', named('any', { kind: 'files', id: '.json' })],
    ['POST', '/ops/5:cancel', named('cancel', { id: '5' })],
    // Not an integer in its one spelling: then it is what a less literal template says.
    ['GET', '/pets/07', named('any', { kind: 'pets', id: '07' })],
    ['GET', '/pets/7.0', named('any', { kind: 'pets', id: '7.0' })],
    ['GET', '/pets/-0', named('any', { kind: 'pets', id: '-0' })],
    ['GET', '/pets/9007199254740993', named('any', { kind: 'pets', id: '9007199254740993' })],
    // Methods and paths that are in no template.
    ['HEAD', '/pets', none],
    ['get', '/pets', none],
    ['GET', '/pets/', none],
    ['DELETE', '/pets/', none],
    ['DELETE', '/pets/7/toys', none],
    ['DELETE', '/Pets/7', none],
    // A path of two readings is nobody's.
    ['DELETE', '/pets/a%2Fb', none],
    ['DELETE', '/pets/%2e%2e', none],
    ['DELETE', '/pets/%ff', none],
  ])('says of %s %s what it asks for', (method, path, expected) => {
    expect(ask(pets, http(method, path))).toEqual(expected)
  })

  test('knows nothing of a WebSocket: what is said over it is no operation', () => {
    const paths = { '/v1/a': { get: { operationId: 'a' } } }
    expect(ask(paths, http('GET', '/v1/a'))).toEqual(named('a'))
    expect(ask(paths, websocket())).toEqual(none)
  })

  test('finds paths below that of the upstream alone', () => {
    const document = read({ '/pets': { get: { operationId: 'list' } } }, {}, '/v%C3%A9/2')
    if (!document.ok) throw new Error('refused')
    const upstream = { name: 'pets', operations: document.operations }
    expect(findApiOperation(upstream, http('GET', '/v%C3%A9/2/pets'))).toEqual(named('list'))
    expect(findApiOperation(upstream, http('GET', '/pets'))).toEqual(none)
  })

  test('follows references within the document', () => {
    const paths = {
      '/a~b/{id}': { $ref: '#/components/pathItems/one' },
      '/c/{id}': { $ref: '#/paths/~1a~0b~1%7Bid%7D' },
    }
    const components = {
      pathItems: { one: { get: { parameters: [{ $ref: '#/components/parameters/id' }] } } },
      parameters: { id: inPath('id', ['integer', 'null']) },
    }
    expect(ask(paths, http('GET', '/a~b/7'), { components })).toEqual(
      named('GET /a~b/{id}', { id: 7 }),
    )
    expect(ask(paths, http('GET', '/c/7'), { components })).toEqual(named('GET /c/{id}', { id: 7 }))
  })
})

function manyPaths(count: number): object {
  return Object.fromEntries(Array.from({ length: count }, (_, n) => [`/${n}`, { get: {} }]))
}

describe('readOpenApi()', () => {
  const parameters = [inPath('a'), inPath('b')]
  const get = (operationId: string): object => ({ get: { operationId, parameters } })
  const id = { get: { parameters: [inPath('id')] } }

  test.each<[string, unknown, (string | number)[], string]>([
    ['equal templates', { '/{a}': get('1'), '/{b}': get('2') }, ['/{b}'], 'It matches the same'],
    [
      'templates that are as literal as each other',
      { '/x/{a}': get('1'), '/{b}/y': get('2') },
      ['/{b}/y'],
      'It matches the same paths as "/x/{a}" does',
    ],
    [
      'parts of segments that may be the same',
      { '/x{a}': get('1'), '/{b}y': get('2') },
      ['/{b}y'],
      'It matches the same',
    ],
    ['names that stand twice', { '/a': get('1'), '/b': get('1') }, ['/b'], 'Another operation is'],
    ['parameters not declared', { '/{id}': { get: {} } }, ['/{id}'], 'Expected a parameter "id"'],
    ['parameters twice', { '/{id}/{id}': id }, ['/{id}/{id}'], 'The parameter "id" stands twice'],
    ['two parameters in a segment', { '/{a}..{b}': get('1') }, ['/{a}..{b}'], 'Expected segments'],
    ['brackets that do not close', { '/{a': get('1') }, ['/{a'], 'Expected segments'],
    ['encoded text', { '/a%20b': id }, ['/a%20b'], 'Expected segments'],
    ['dot segments', { '/a/../b': id }, ['/a/../b'], 'Expected segments'],
    ['empty segments', { '/a//b': id }, ['/a//b'], 'Expected segments'],
    ['a path that is none', { pets: id }, ['pets'], 'Expected a path such as'],
    ['a path that is too deep', { ['/a'.repeat(33)]: id }, ['/a'.repeat(33)], 'Expected a path'],
    [
      'a parameter that spells an entity',
      { '/{__entity}': { get: { parameters: [inPath('__entity')] } } },
      ['/{__entity}'],
      'Expected another name',
    ],
    ['an operation that is none', { '/a': { get: 1 } }, ['/a', 'get'], 'Expected a mapping'],
    [
      'a name that is none',
      { '/a': { get: { operationId: 1 } } },
      ['/a', 'get', 'operationId'],
      'Expected text',
    ],
    [
      'references to elsewhere',
      { '/a': { $ref: 'https://x.test/a' } },
      ['/a', '$ref'],
      'Expected a reference within',
    ],
    [
      'references to files',
      { '/a': { $ref: 'a.yaml#/a' } },
      ['/a', '$ref'],
      'Expected a reference within',
    ],
    [
      'references to nothing',
      { '/a': { $ref: '#/components/x' } },
      ['/a', '$ref'],
      'Expected a reference to a part',
    ],
    [
      'references to members of ours',
      { '/a': { $ref: '#/constructor' } },
      ['/a', '$ref'],
      'Expected a reference to a part',
    ],
    [
      'references in a circle',
      { '/a': { $ref: '#/paths/~1a' } },
      ['/a', '$ref'],
      'Expected at most 8 references',
    ],
    [
      'references of parameters to elsewhere',
      { '/a': { get: { parameters: [{ $ref: 'x' }] } } },
      ['/a', 'get', 'parameters', 0, '$ref'],
      'Expected a reference within',
    ],
  ])('refuses %s', (_what, paths, path, message) => {
    const result = read(paths)
    expect(result).toMatchObject({
      ok: false,
      findings: expect.arrayContaining([
        expect.objectContaining({
          path: ['paths', ...path],
          message: expect.stringContaining(message),
        }),
      ]),
    })
  })

  test.each([
    [{ swagger: '2.0', paths: {} }, 'openapi'],
    [{ openapi: '4.0.0', paths: {} }, 'openapi'],
    [{ openapi: '3.0.0' }, 'paths'],
    [[], undefined],
  ])('refuses %j', (document, setting) => {
    const result = readOpenApi(document, { basePath: '' })
    expect(result).toMatchObject({ ok: false, findings: [{ path: setting ? [setting] : [] }] })
  })

  test('takes as many operations as there may be, and not one more', () => {
    expect(read(manyPaths(1000)).ok).toBe(true)
    expect(read(manyPaths(1001))).toMatchObject({
      findings: [{ path: ['paths'], message: 'Expected at most 1000 operations' }],
    })
  })
})
