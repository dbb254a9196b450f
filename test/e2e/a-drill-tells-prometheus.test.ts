import { readdir, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { dirname } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import { startWorld, temporaryFile, type World } from '../kit/world.ts'

const docs = await readFile(new URL('../../docs/deploy.md', import.meta.url), 'utf8')
const told = [...docs.matchAll(/^\| `(chaperone_drill_\w+)` \|/gm)].map(([, name]) => String(name))
/** What the page has instead of the settings of the agents. */
const page: Readonly<Record<string, unknown>> = parse(
  /```yaml\n(approvers:\n {2}# No agent's[^`]*)```/.exec(docs)?.[1] ?? '',
)

let world: World
let address: string
let common: readonly string[]
let metricsFile: string

beforeAll(async () => {
  address = `127.0.0.1:${await freePort()}`
  const upstreams = JSON.stringify(page['upstreams']).replace('127.0.0.1:15090', address)
  world = await startWorld({
    // A drill that a slow machine makes stale measures nothing.
    revocation: 'staleAfterWrites: 30s, staleAfterReads: 30s, staleAfterStreams: 60s',
    settings: {
      upstreams: `upstreams: ${upstreams}`,
      routes: `routes: ${JSON.stringify(page['routes'])}`,
    },
  })
  const key = await temporaryFile('approver.json', JSON.stringify(world.approver.privateJwk))
  const svid = await temporaryFile('svid', world.svid)
  metricsFile = await temporaryFile('drill.prom', 'stale 1\n')
  const files = ['--key', key, '--svid', svid, '--metrics-file', metricsFile]
  common = ['drill', '--target', `${world.sidecar.agentUrl}/canary`, ...files]
})
afterAll(() => world[Symbol.asyncDispose]())

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  server.close()
  await once(server, 'close')
  if (bound === null || typeof bound === 'string') throw new Error('No free port')
  return bound.port
}

/** Name and labels to value. Throws on a line that is neither a comment nor a sample. */
async function samples(): Promise<ReadonlyMap<string, string>> {
  const lines = (await readFile(metricsFile, 'utf8')).trimEnd().split('\n')
  return new Map(
    lines
      .filter((line) => !line.startsWith('# '))
      .map((line) => {
        const [, name, value] =
          /^(chaperone_\w+(?:\{\w+="\w+"\})?) (\+Inf|\d+(?:\.\d+)?)$/.exec(line) ?? []
        if (name === undefined || value === undefined) throw new Error(`Not a sample: ${line}`)
        return [name, value] as const
      }),
  )
}

test('a drill serves its own upstream and tells Prometheus what docs/deploy.md lists', async () => {
  const beganSeconds = Date.now() / 1000
  const budgets = ['--budget-refusal', '10s', '--budget-cut', '10s']
  const { code, stderr } = await world.cli(...common, '--serve', address, ...budgets)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const found = await samples()
  const names = new Set([...found.keys()].map((sample) => sample.replace(/\{.*/, '')))
  expect([...names].toSorted()).toEqual(told.toSorted())
  expect(found.get('chaperone_drill_success')).toBe('1')
  expect(Number(found.get('chaperone_drill_last_run_timestamp_seconds'))).toBeGreaterThan(
    beganSeconds,
  )
  expect(found.get('chaperone_drill_budget_seconds{limit="cut"}')).toBe('10')
  expect(found.get('chaperone_drill_harmed_siblings')).toBe('0')
  for (const flow of ['poll', 'sse', 'websocket', 'download', 'upload']) {
    expect(Number(found.get(`chaperone_drill_ended_seconds{flow="${flow}"}`))).toBeGreaterThan(0)
  }
  // Nothing is left beside it that a collector or the next drill could stumble over.
  expect(await readdir(dirname(metricsFile))).toEqual(['drill.prom'])
})

test('a drill that could not be carried out is told too, without the figures of the one before', async () => {
  // Nobody serves the upstream.
  const { code } = await world.cli(...common)
  expect(code).toBe(2)
  const found = await samples()
  expect([...found.keys()].toSorted()).toEqual([
    'chaperone_drill_duration_seconds',
    'chaperone_drill_last_run_timestamp_seconds',
    'chaperone_drill_success',
  ])
  expect(found.get('chaperone_drill_success')).toBe('0')
})

test('a drill over its budget is no success', async () => {
  const budgets = ['--budget-refusal', '0ms', '--budget-cut', '0ms']
  const { code } = await world.cli(...common, '--serve', address, ...budgets)
  expect(code).toBe(5)
  const found = await samples()
  expect(found.get('chaperone_drill_success')).toBe('0')
  expect(found.get('chaperone_drill_budget_seconds{limit="refusal"}')).toBe('0')
})

test('a drill whose own upstream cannot listen is told too', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const bound = taken.address()
  if (bound === null || typeof bound === 'string') throw new Error('No port')
  const { code, stderr } = await world.cli(...common, '--serve', `127.0.0.1:${bound.port}`)
  taken.close()
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining('EADDRINUSE') })
  expect((await samples()).get('chaperone_drill_success')).toBe('0')
})
