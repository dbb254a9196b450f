import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { importJWK, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { signingKey, type SigningKey } from '../kit/tokens.ts'
import { runCli, startWorld, temporaryFile, type CliResult, type World } from '../kit/world.ts'

let world: World
let second: SidecarProcess
let checkpointKey: SigningKey
let keyFile: string
let svidFile: string

beforeAll(async () => {
  checkpointKey = await signingKey('EdDSA')
  world = await startWorld({
    // A drill that a slow machine makes stale measures nothing.
    revocation: 'staleAfterWrites: 30s, staleAfterReads: 30s, staleAfterStreams: 60s',
    settings: {
      audit: 'audit: { sink: audit.ndjson, checkpoint: { keys: { file: check.json }, every: 1s } }',
    },
    files: { 'check.json': JSON.stringify({ keys: [checkpointKey.privateJwk] }) },
  })
  second = await world.another()
  keyFile = await temporaryFile('approver.json', JSON.stringify(world.approver.privateJwk))
  svidFile = await temporaryFile('svid', world.svid)
})
afterAll(async () => {
  await second[Symbol.asyncDispose]()
  await world[Symbol.asyncDispose]()
})

const kinds = ['poll', 'sse', 'websocket', 'download', 'upload']
const reset = ['reset', undefined]
/** Where something is told, the end of the connection may overtake it on a machine under load. */
const endings: Readonly<Record<string, unknown>> = {
  poll: [['refused', 'task-terminated']],
  sse: [reset],
  websocket: [['closed', 'task-terminated'], reset],
  download: [reset],
  upload: [['refused', 'task-terminated'], reset],
}

describe('chaperone drill', () => {
  test('finds every flow of two sidecars cut and the siblings unharmed, and the audit agrees', async () => {
    const out = await temporaryFile('drill.json', '')
    const { code, stdout, stderr } = await drill(
      '--target',
      `${second.agentUrl}/api`,
      '--out',
      out,
      '--budget-refusal',
      '10s',
      '--budget-cut',
      '10s',
    )
    expect(stderr).toBe('')
    expect(stdout).toContain('siblings 10/10 unharmed\nwithin-budget: refusal 10000 ms')
    expect(code).toBe(0)
    const { sig, ...report } = JSON.parse(await readFile(out, 'utf8'))
    expect(report.canary).toHaveLength(10)
    for (const target of [world.sidecar, second].map(({ agentUrl }) => `${agentUrl}/api`)) {
      const flows = report.canary.filter((flow: { target: string }) => flow.target === target)
      expect(flows.map(({ kind }: Told) => kind)).toEqual(kinds)
      for (const flow of flows) expect(endings[flow.kind]).toContainEqual([flow.end, flow.code])
    }
    expect(report.canary.every(({ ended_ms: ms }: Told) => ms !== null && ms > 0)).toBe(true)
    expect(report.siblings.map(({ kind }: Told) => kind)).toEqual([...kinds, ...kinds])
    const key = await importJWK(world.approver.publicJwk)
    const signed = await jwtVerify(sig, key, { typ: 'drill-report+jwt' })
    expect(signed.payload['report']).toEqual(report)
    await expectEvidence(report.revocation)
  })

  test('ends with 5 and says by how much when it is over the budget', async () => {
    const { code, stdout } = await drill('--budget-refusal', '0ms', '--budget-cut', '0ms')
    expect(stdout).toMatch(/sse through \S+: ended after \S+ ms, budget 0 ms/)
    expect(stdout).toMatch(/poll through \S+: refused after \S+ ms, budget 0 ms/)
    expect(stdout).toContain('over-budget')
    expect(code).toBe(5)
  })

  test('ends with 2 and revokes nothing when a flow does not come to life', async () => {
    const before = await world.cli('revocations', '--json')
    const { code, stderr } = await drill('--purpose', 'Not A Purpose')
    expect(stderr).toMatch(/through \S+ did not come to life: refused 403 task-grant-invalid/)
    expect(code).toBe(2)
    expect((await world.cli('revocations', '--json')).stdout).toBe(before.stdout)
  })
})

interface Told {
  readonly kind: string
  readonly end: string
  readonly code?: string
  readonly ended_ms: number | null
}

function drill(...args: readonly string[]): Promise<CliResult> {
  const target = ['--target', `${world.sidecar.agentUrl}/api`]
  const keys = ['--key', keyFile, '--svid', svidFile]
  return world.cli('drill', ...target, ...keys, '--poll-path', '/things', ...args)
}

/** The files alone tell the same: cut on both, tried again, never acted; and they are signed. */
async function expectEvidence({ rid }: { readonly rid: string }): Promise<void> {
  const files = [world.sidecar, second].map(({ directory }) => join(directory, 'audit.ndjson'))
  for (const sidecar of [world.sidecar, second]) {
    await sidecar.recorded((one) => one['type'] === 'outcome' && one['end'] === 'denied')
  }
  const account = await runCli(['audit', 'report', ...files, '--revocation', rid, '--json'])
  const report = JSON.parse(account.stdout)
  expect(report).toMatchObject({ verdict: 'clean', acted_count: 0 })
  expect(report.sidecars).toHaveLength(2)
  const byHow = Object.fromEntries(
    report.cut.map(({ how, count }: { how: string; count: number }) => [how, count]),
  )
  expect(byHow['close-1008']).toBe(2)
  expect(byHow.reset).toBeGreaterThanOrEqual(4)
  expect(report.attempts.decisions).toBeGreaterThanOrEqual(2)
  expect(account.code).toBe(0)

  const jwks = await temporaryFile('jwks', JSON.stringify({ keys: [checkpointKey.publicJwk] }))
  await world.sidecar.recorded((one) => one['type'] === 'checkpoint')
  const verified = await runCli(['audit', 'verify', files[0] ?? '', '--key', jwks])
  expect(verified.stdout).toMatch(/chain intact.*\nsigned up to seq \d+ at \S+, \d+ checkpoints/)
  expect(verified.code).toBe(0)
}
