import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { createChain } from '../../audit/chain.ts'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { jwksDocument, signingKey } from '../kit/tokens.ts'
import { startWorld, temporaryFile, type CliResult, type World } from '../kit/world.ts'

let world: World
let other: SidecarProcess
let keyPath = ''
const poll = { timeout: 60_000, interval: 50 }
vi.setConfig({ testTimeout: 180_000, hookTimeout: 60_000 })

beforeAll(async () => {
  const key = await signingKey('EdDSA')
  keyPath = await temporaryFile('checkpoint.jwks.json', jwksDocument([key]))
  world = await startWorld({
    settings: {
      audit:
        'audit: { sink: audit.ndjson, checkpoint: { keys: { file: checkpoint.json }, every: 1s } }',
    },
    files: { 'checkpoint.json': JSON.stringify(key.privateJwk) },
  })
  other = await world.another()
  await world.approve('T-1')
})
afterAll(async () => {
  await other[Symbol.asyncDispose]()
  await world[Symbol.asyncDispose]()
})

const logOf = (sidecar: SidecarProcess): string => join(sidecar.directory, 'audit.ndjson')

function verify(...files: readonly string[]): Promise<CliResult> {
  return world.cli('audit', 'verify', ...files, '--against-store', '--key', keyPath)
}

/** How many checkpoints of this sidecar the store took, or did not. */
async function counted(sidecar: SidecarProcess, outcome: 'stored' | 'failed'): Promise<number> {
  const text = await (await fetch(`${sidecar.adminUrl}/metrics`)).text()
  const line = new RegExp(`^chaperone_checkpoints_total\\{outcome="${outcome}"\\} (\\d+)$`, 'm')
  return Number(line.exec(text)?.[1] ?? 0)
}

async function call(sidecar = world.sidecar): Promise<number> {
  const url = `${sidecar.agentUrl}/api/things`
  return (await fetch(url, { headers: world.headers('T-1') })).status
}

test('a file that is whole, cut off, rewritten or gone is told by the checkpoints in Redis', async () => {
  await call(other)
  await expect.poll(() => counted(other, 'stored'), poll).toBeGreaterThan(0)
  // Two: the second one signs where the fleet's chain was.
  await expect
    .poll(async () => {
      await call()
      return counted(world.sidecar, 'stored')
    }, poll)
    .toBeGreaterThan(1)
  const whole = await verify(logOf(world.sidecar), logOf(other))
  expect(whole).toMatchObject({ code: 0, stderr: '' })
  expect(whole.stdout).toContain('everything that the store has a checkpoint of is there\n')
  const records = await world.sidecar.audit()
  const checkpoints = records.filter(({ type }) => type === 'checkpoint')
  expect(Object(checkpoints[1]?.['checkpoint']).fleet).toMatch(/^\d+:[0-9a-f]{40}$/)

  const alone = await verify(logOf(world.sidecar))
  expect(alone.code).toBe(1)
  expect(alone.stdout).toMatch(/^missing file: sidecar \S+ signed up to record \d+/m)

  const lines = (await readFile(logOf(world.sidecar), 'utf8')).trim().split('\n')
  const cutOff = await temporaryFile('cut-off.ndjson', `${lines.slice(0, 3).join('\n')}\n`)
  const short = await verify(cutOff, logOf(other))
  expect(short.code).toBe(1)
  expect(short.stdout).toMatch(/^missing tail: sidecar \S+ signed up to record \d+ .* ends at 3$/m)

  const sealedAnew = await temporaryFile('anew.ndjson', '')
  const chain = createChain()
  const forged = records
    .filter(({ type }) => type !== 'checkpoint')
    .map(({ seq: _seq, prev: _prev, hash: _hash, v: _v, ts, mono_ns, sidecar, ...event }) =>
      chain.seal({ ...event, forged: 1 } as never, { ts, mono_ns, sidecar } as never),
    )
  const padding = Array.from({ length: 20 }, () => {
    const { ts, mono_ns, sidecar } = Object(records[0])
    return chain.seal({ type: 'heartbeat', detail: {} }, { ts, mono_ns, sidecar })
  })
  await writeFile(sealedAnew, `${[...forged, ...padding].join('\n')}\n`)
  const anew = await verify(sealedAnew, logOf(other))
  expect(anew.code).toBe(1)
  expect(anew.stdout).toMatch(/^rewritten: sidecar \S+ signed up to record \d+/m)
})

test('requests go on, and the fault is counted, while the store does not take checkpoints', async () => {
  // The revocation view must stay fresh: only the checkpoints have no place to go.
  await world.redis.cli('SET', '{chaperone}:example.org:checkpoints-head', 'nothing')
  const before = await counted(world.sidecar, 'failed')
  await expect
    .poll(async () => {
      expect(await call()).toBe(200)
      return counted(world.sidecar, 'failed')
    }, poll)
    .toBeGreaterThan(before)
  const seen = (await world.sidecar.audit()).filter(({ type }) => type === 'checkpoint').length
  await expect
    .poll(async () => {
      await call()
      return (await world.sidecar.audit()).filter(({ type }) => type === 'checkpoint').length
    }, poll)
    .toBeGreaterThan(seen)
})
