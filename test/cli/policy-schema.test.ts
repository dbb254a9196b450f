import { readFile } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeConfigFolder, type ConfigFolder } from '../kit/config-folder.ts'
import { runPolicy } from '../kit/run-policy.ts'
import { names } from '../kit/tokens.ts'

let folder: ConfigFolder
beforeEach(async () => {
  folder = await writeConfigFolder()
  await folder.write(
    'api.json',
    '{"openapi": "3.0.0", "paths": {"/a/{id}": {"get": {"operationId": "one", "parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}]}}}}',
  )
  await folder.write(
    'api.test.yaml',
    `defaults: { upstream: { name: api } }
cases:
  - { name: one, request: GET /a/7, expect: allow, by: one }
  - { name: no number, request: GET /a/x, expect: deny }
  - { name: elsewhere, request: GET /a/7, expect: deny, upstream: { name: keyed } }
`,
  )
  const presets = 'policy: { presets: [{ id: never, effect: forbid, methods: [TRACE] }] }'
  await folder.load({
    upstreams: `upstreams:
  - { name: api, url: "${names.upstream}", openapi: api.json, credential: { none: true } }
  - { name: keyed, url: "${names.upstream}:8443", credential: { none: true } }`,
    policy: presets,
  })
})
afterEach(() => folder[Symbol.asyncDispose]())

const config = (): readonly string[] => ['-c', folder.file('chaperone.yaml')]

describe('chaperone policy schema', () => {
  test('prints the operations of the OpenAPI documents', async () => {
    const { out } = await runPolicy('schema', ...config())
    expect(out).toContain('  entity Operation enum [\n    "api/one",\n    "undescribed"\n  ];\n')
    expect(out).toContain('    typed: {\n      "api/one"?: { "id": Long },\n    },\n')
    expect(await runPolicy('schema')).not.toMatchObject({
      out: expect.stringContaining('Operation'),
    })
  })

  test('is what check and cases go by', async () => {
    const policies = folder.path
    await folder.write(
      'a.cedar',
      `@id("one") permit (principal, action == Chaperone::Action::"http.read", resource)
       when { context.operation == Chaperone::Operation::"api/one" };`,
    )
    const set = [...config(), '-d', policies]
    expect(await runPolicy('check', ...set)).toMatchObject({ code: 0, err: '' })
    const tested = await runPolicy('test', folder.file('api.test.yaml'), ...set)
    expect(tested.out).toContain('3 held, 0 did not')
    const text = await readFile(folder.file('a.cedar'), 'utf8')
    await folder.write('a.cedar', text.replace('api/one', 'api/on'))
    expect(await runPolicy('check', ...set)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/a\.cedar:2:\d+ .*api\/on/),
    })
  })
})
