import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { UpstreamConfig } from '../../config/schema.ts'
import { readFactsInWorker } from '../../proxy/build-in-worker.ts'
import { PolicyFileError } from '../../proxy/policy-files.ts'
import { upstreamFacts } from '../../proxy/upstream-facts.ts'
import { writeConfigFolder, type ConfigFolder } from '../kit/config-folder.ts'

let folder: ConfigFolder
let upstreams: readonly UpstreamConfig[] = []
beforeEach(async () => {
  folder = await writeConfigFolder()
  const { upstreams: all } = await folder.load()
  upstreams = all.map((one) =>
    one.name === 'api' ? { ...one, openapi: folder.file('api.yaml'), url: `${one.url}/v1/` } : one,
  )
})
afterEach(() => folder[Symbol.asyncDispose]())

const yaml = `openapi: 3.0.3
info: { title: Pets, version: 1 }
paths:
  /pets/{id}:
    get:
      operationId: get
      parameters:
        - { name: id, in: path, required: true, schema: { type: integer } }
      responses:
        200: { description: found }
        default: { description: wrong }
`

describe('upstreamFacts() with an OpenAPI document', () => {
  test.each([
    ['YAML', yaml],
    [
      'JSON',
      '{"openapi":"3.0.3","paths":{"/pets/{id}":{"get":{"operationId":"get","parameters":[{"name":"id","in":"path","schema":{"type":"integer"}}]}}}}',
    ],
    // A number that strict JSON does not take is none of ours.
    [
      'JSON with a large number',
      '{"openapi":"3.0.3","paths":{"/pets/{id}":{"get":{"operationId":"get","parameters":[{"name":"id","in":"path","schema":{"type":"integer","maximum":9223372036854775807}}]}}}}',
    ],
  ])('reads %s, below the path of the upstream', async (_what, text) => {
    await folder.write('api.yaml', text)
    const facts = upstreamFacts(upstreams)
    expect([...(facts.get('api')?.operations ?? [])]).toEqual([
      [
        'GET 3',
        [
          {
            name: 'get',
            segments: [
              { literal: 'v1' },
              { literal: 'pets' },
              { parameter: 'id', type: 'Long', prefix: '', suffix: '' },
            ],
          },
        ],
      ],
    ])
    expect(facts.get('keyed')?.operations?.size).toBe(0)
    expect(await readFactsInWorker(upstreams)).toEqual(facts)
  })

  test.each([
    [yaml.replace('3.0.3', '"2.0"'), '1:10 openapi: Expected openapi: 3.0.x or 3.1.x'],
    [
      yaml.replace('name: id', 'name: ident'),
      '4:3 paths["/pets/{id}"]: Expected a parameter "id" with in: path',
    ],
    [
      `${yaml}  /pets/{name}:\n    get: { parameters: [{ name: name, in: path }] }\n`,
      '12:3 paths["/pets/{name}"]: It matches the same paths as "/pets/{id}" does',
    ],
    [
      yaml.replace('operationId: get', 'operationId: [a]'),
      '6:20 paths["/pets/{id}"].get.operationId: Expected text',
    ],
    [
      `${yaml}  /x: { $ref: "./other.yaml" }\n`,
      '12:15 paths["/x"]["$ref"]: Expected a reference within the document: "#/..."',
    ],
    [yaml.replace('{ title', '&a { title'), '2:10 Anchors are not allowed'],
    [`${yaml}  /pets/{id}: {}\n`, '12:3 The key stands twice'],
    ['[', '1:2'],
    [
      '{"openapi": "3.0.0",\n "paths": {"x": {"get": {}}}}',
      '2:12 paths.x: Expected a path such as',
    ],
  ])('says where it is wrong: %#', async (text, problem) => {
    await folder.write('api.yaml', text)
    const where = `${folder.file('api.yaml')}:${problem}`
    expect(() => upstreamFacts(upstreams)).toThrow(PolicyFileError)
    expect(() => upstreamFacts(upstreams)).toThrow(where)
  })

  test('names a file that is not there, also from a thread of its own', async () => {
    const why = `${folder.file('api.yaml')}:1:1 The file does not exist`
    expect(() => upstreamFacts(upstreams)).toThrow(why)
    const failed = readFactsInWorker(upstreams)
    await expect(failed).rejects.toThrow(why)
    await expect(failed).rejects.toBeInstanceOf(PolicyFileError)
  })

  test('refuses a document that is too large', () => {
    const root = mkdtempSync(join(tmpdir(), 'facts-'))
    writeFileSync(join(root, 'a.json'), ' '.repeat(2 * 1024 * 1024 + 1))
    const large = upstreams.map((one) => ({ ...one, openapi: join(root, 'a.json') }))
    expect(() => upstreamFacts(large)).toThrow('more than 2097152 bytes')
    rmSync(root, { recursive: true })
  })
})
