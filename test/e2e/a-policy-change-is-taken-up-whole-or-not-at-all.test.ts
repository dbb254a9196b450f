import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { DecisionEvent } from '../../audit/record.ts'
import type { AuditLine } from '../kit/sidecar.ts'
import { startWorld, type World } from '../kit/world.ts'

const all = '@id("all") permit (principal, action, resource);'
const noWrites =
  '@id("no-writes") @severity("high") forbid (principal, action in Chaperone::Action::"write", resource);'
const wait = { timeout: 30_000, interval: 100 }

let world: World
let policies = ''

beforeAll(async () => {
  world = await startWorld()
  policies = join(world.sidecar.directory, 'policies')
  await mkdir(policies)
  await writeFile(join(policies, 'a.cedar'), all)
  await writeFile(
    join(policies, 'a.test.yaml'),
    'cases:\n  - { name: reads stay open, request: GET /a, expect: allow }\n',
  )
  await configure((text) => `${text}policy: { directory: policies, tests: policies }\n`)
  await world.approve('T-1')
})
afterAll(() => world?.[Symbol.asyncDispose]())

test('a change in the directory is in force without a signal', async () => {
  expect((await post()).status).toBe(200)
  await writeFile(join(policies, 'b.cedar'), noWrites)
  await vi.waitFor(async () => expect((await post()).status).toBe(403), wait)
  await vi.waitFor(async () => {
    const denied = (await decisions()).findLast(({ decision }) => decision.effect === 'deny')
    expect(denied?.decision).toMatchObject({ policy_ids: ['no-writes'], severity: 'high' })
  }, wait)
})

test('a set of which a case does not hold, and an empty directory, leave the old one in force', async () => {
  await writeFile(join(policies, 'c.cedar'), '@id("none") forbid (principal, action, resource);')
  await vi.waitFor(
    async () => expect(await readiness()).toContain('a newer one was refused at'),
    wait,
  )
  expect(world.sidecar.output()).toContain('reads stay open: expected allow, got deny by none')
  expect((await get()).status).toBe(200)
  expect((await post()).status).toBe(403)
  for (const name of ['a', 'b', 'c']) await rm(join(policies, `${name}.cedar`))
  await vi.waitFor(() => expect(world.sidecar.output()).toContain('Expected *.cedar files'), wait)
  expect((await get()).status).toBe(200)
  expect((await post()).status).toBe(403)
  expect(await metrics()).toMatch(/chaperone_config_reloads_total\{result="rejected"\} [1-9]/)
})

test('shadow policies are recorded and counted, and change nothing', async () => {
  await writeFile(join(policies, 'a.cedar'), all)
  await writeFile(join(policies, 'b.cedar'), noWrites.replace('forbid', '@mode("shadow") forbid'))
  await vi.waitFor(async () => expect((await post()).status).toBe(200), wait)
  expect(await readiness()).not.toContain('refused at')
  expect(await readiness()).toMatch(/policy: set \w{12}, shadow \w{12}/)
  expect(await metrics()).toMatch(/shadow_decisions_total\{effect="allow",shadow="deny"\} [1-9]/)
  await vi.waitFor(async () => {
    const shadows = (await decisions()).map(({ decision }) => decision.shadow)
    expect(shadows).toContainEqual({ effect: 'deny', policy_ids: ['no-writes'] })
  }, wait)
})

test('arguments of a tool are judged by the types that its file declares', async () => {
  const amount = '{ "type": "object", "properties": { "amount": { "type": "integer" } } }'
  await writeFile(
    join(world.sidecar.directory, 'tools.json'),
    `{ "tools": [{ "name": "lookup", "inputSchema": ${amount} }] }`,
  )
  await configure((text) => text.replace('kind: mcp,', 'kind: mcp, tools: tools.json,'))
  await writeFile(
    join(policies, 'c.cedar'),
    `@id("large") @reason("Too large.") forbid (principal, action == Chaperone::Action::"tools/call", resource)
     when { context.typed has "tools/lookup" && context.typed["tools/lookup"] has amount && context.typed["tools/lookup"].amount > 5 };`,
  )
  await vi.waitFor(async () => expect(await lookup(6)).toContain('Too large.'), wait)
  expect(await lookup(5)).not.toContain('isError')
  expect(await lookup('5')).toContain('isError')
  expect((await decisions()).at(-1)?.decision.detail).toBe(
    'cannot be put to policy: an argument has another type than the tool declares',
  )
})

test('operations are known by the names that an OpenAPI document gives them', async () => {
  const file = join(world.sidecar.directory, 'api.yaml')
  await writeFile(file, document('look'))
  await writeFile(
    join(policies, 'd.cedar'),
    `@id("no-echo") forbid (principal, action == Chaperone::Action::"http.read", resource)
     when { context.operation == Chaperone::Operation::"api/look" && context.typed has "api/look" && context.typed["api/look"].what == "echo" };`,
  )
  await configure((text) => text.replace('name: api,', '$& openapi: api.yaml,'))
  await vi.waitFor(async () => expect((await get()).status).toBe(403), wait)
  // A name that is gone is a mistake of the policies: the old document stays with them.
  await writeFile(file, document('other'))
  await vi.waitFor(async () => expect(await readiness()).toContain('refused at'), wait)
  expect(world.sidecar.output()).toContain('d.cedar:')
  await writeFile(file, document('[]'))
  const place = 'api.yaml:4:25 paths[\\"/{what}\\"].get.operationId: Expected text'
  await vi.waitFor(() => expect(world.sidecar.output()).toContain(place), wait)
  expect((await get()).status).toBe(403)
  await writeFile(file, document('look').replace('/{what}', '/x/{what}'))
  await vi.waitFor(async () => expect((await get()).status).toBe(200), wait)
}, 60_000)

test('an observed task lets through what policies refuse to it, and to no other', async () => {
  await world.approve('T-2')
  await writeFile(join(policies, 'b.cedar'), noWrites)
  await vi.waitFor(async () => expect((await post()).status).toBe(403), wait)
  const until = new Date(Date.now() + 3_600_000).toISOString()
  const line = 'policy: { directory: policies,'
  const observed = `${line} unsafeObserveTasks: [{ task: T-1, until: "${until}" }],`
  await configure((text) => text.replace(line, observed))
  await vi.waitFor(async () => expect((await post()).status).toBe(200), wait)
  expect((await post('T-2')).status).toBe(403)
  expect(await readiness()).toContain('1 tasks observed only (unsafeObserveTasks)')
  expect(world.sidecar.output()).toContain('task \\"T-1\\": what policies refuse is allowed until')
  await vi.waitFor(async () => {
    const last = (await decisions()).findLast(({ decision }) => decision.observed)
    expect(last).toMatchObject({
      task: { txn: 'T-1' },
      decision: { observed: { effect: 'deny', policy_ids: ['no-writes'] } },
    })
  }, wait)
  await configure((text) => text.replace(observed, line))
  await vi.waitFor(async () => expect((await post()).status).toBe(403), wait)
}, 60_000)

test('an observed route lets through what policies refuse, says so, and cuts nothing of a revocation', async () => {
  await writeFile(join(policies, 'b.cedar'), noWrites)
  await vi.waitFor(async () => expect((await post()).status).toBe(403), wait)
  const until = new Date(Date.now() + 3_600_000).toISOString()
  await configure((text) =>
    text.replace('prefix: /api, upstream: api', `$&, unsafeObserveUntil: "${until}"`),
  )
  await vi.waitFor(async () => expect((await post()).status).toBe(200), wait)
  expect(await readiness()).toContain('1 routes observed only')
  expect(world.sidecar.output()).toContain(
    'route \\"/api\\": what policies refuse is allowed until',
  )
  expect(await metrics()).toContain('chaperone_observed_total{route="/api"}')
  await vi.waitFor(async () => {
    const observed = (await decisions()).map(({ decision }) => decision.observed)
    expect(observed).toContainEqual({ effect: 'deny', policy_ids: ['no-writes'] })
  }, wait)
  expect((await world.cli('revoke', 'task', 'T-1', '-r', 'test')).code).toBe(0)
  expect((await post()).status).toBe(403)
})

const document = (name: string): string =>
  `openapi: 3.1.0\npaths:\n  /{what}:\n    get: { operationId: ${name}, parameters: [{ name: what, in: path }] }\n`
const get = (): Promise<Response> =>
  fetch(`${world.sidecar.agentUrl}/api/echo`, { headers: world.headers('T-1') })
const post = (txn: string = 'T-1'): Promise<Response> =>
  fetch(`${world.sidecar.agentUrl}/api/echo`, {
    method: 'POST',
    headers: world.headers(txn),
    body: 'x',
  })
const admin = async (path: string): Promise<string> =>
  (await fetch(`${world.sidecar.adminUrl}${path}`)).text()
const readiness = (): Promise<string> => admin('/readyz?verbose')
const metrics = (): Promise<string> => admin('/metrics')

async function lookup(amount: unknown): Promise<string> {
  const params = { name: 'lookup', arguments: { order: 'A-1', amount } }
  const answer = await fetch(`${world.sidecar.agentUrl}/mcp`, {
    method: 'POST',
    headers: {
      ...world.headers('T-1'),
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
  })
  return answer.text()
}

async function configure(change: (text: string) => string): Promise<void> {
  const path = join(world.sidecar.directory, 'chaperone.yaml')
  await writeFile(path, change(await readFile(path, 'utf8')))
}

async function decisions(): Promise<readonly DecisionEvent[]> {
  const lines = await world.sidecar.audit()
  return lines.filter((line): line is AuditLine & DecisionEvent => line['type'] === 'decision')
}
