import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { startWorld, type World } from '../kit/world.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
  await world.approve('T-1')
})
afterAll(() => world[Symbol.asyncDispose]())

/** A sidecar whose sink takes nothing. */
function without(more: string): Promise<SidecarProcess> {
  const audit = `audit: { sink: /dev/full, writeTimeout: 100ms${more} }`
  return world.another({ settings: { audit }, waitReady: false })
}

async function answerOf(sidecar: SidecarProcess): Promise<readonly [number, unknown]> {
  const url = `${sidecar.agentUrl}/api/things`
  const answer = await fetch(url, { headers: world.headers('T-1') })
  return [answer.status, Object(await answer.json()).code]
}

test('a request is refused when its record cannot be written', async () => {
  await using sidecar = await without('')
  await expect
    .poll(async () => (await fetch(`${sidecar.adminUrl}/readyz?verbose`)).text(), {
      timeout: 10_000,
    })
    .toContain('[-] audit: ')
  await expect.poll(() => answerOf(sidecar)).toEqual([400, 'request-refused'])
})

test('a request goes on when its record is in the spool', async () => {
  await using sidecar = await without(', onFailure: unsafe-continue, spool: { file: spool }')
  await sidecar.readyIs(true)
  expect(await answerOf(sidecar)).toEqual([200, undefined])
  const spooled = await readFile(join(sidecar.directory, 'spool'), 'utf8')
  const records = spooled
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(records.find(({ type }) => type === 'decision')).toMatchObject({
    decision: { effect: 'allow' },
    task: { txn: 'T-1' },
  })
  expect(await (await fetch(`${sidecar.adminUrl}/metrics`)).text()).toMatch(
    /^chaperone_audit_spooled [1-9]/m,
  )
  expect(sidecar.output()).toContain('the audit sink takes no records')
})
