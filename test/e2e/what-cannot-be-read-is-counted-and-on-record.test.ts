import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { watch } from '../kit/relay.ts'
import { runCli, startWorld } from '../kit/world.ts'

test('what cannot be read is counted and on record, and a flood of it is a few records', async () => {
  await using world = await startWorld()
  await world.approve('T-1')
  const { sidecar } = world
  const { port } = new URL(sidecar.agentUrl)
  for (let n = 0; n < 300; n += 1) {
    const peer = watch(connect(Number(port), '127.0.0.1'))
    peer.socket.write('GET /secret-path HTTP/1.1\r\nHost : bad\r\n\r\n')
    await peer.ended
    expect(peer.text()).toMatch(/^HTTP\/1\.1 400 /)
  }
  const metrics = await (await fetch(`${sidecar.adminUrl}/metrics`)).text()
  expect(metrics).toContain('chaperone_unread_requests_total{reason="malformed"} 300')
  const answer = await fetch(`${sidecar.agentUrl}/api/things`, { headers: world.headers('T-1') })
  expect(answer.status).toBe(200)
  sidecar.kill('SIGTERM')
  expect(await sidecar.exited).toBe(0)
  const records = (await sidecar.audit()).filter(({ type }) => type === 'unread')
  expect(records[0]).toMatchObject({ detail: { malformed: 1 } })
  const counts = records.map(({ detail }) => (detail as { malformed: number }).malformed)
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(300)
  expect(records.length).toBeLessThan(15)
  const path = join(sidecar.directory, 'audit.ndjson')
  expect(await runCli(['audit', 'verify', path])).toMatchObject({ code: 0 })
  expect(JSON.stringify(await sidecar.audit())).not.toContain('secret-path')
})
