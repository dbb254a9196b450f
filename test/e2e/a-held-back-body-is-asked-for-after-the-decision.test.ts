import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { until, watch, type Peer } from '../kit/relay.ts'
import { startWorld, type World } from '../kit/world.ts'

const body = '{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}'

describe('a held-back body is asked for after the decision', () => {
  let world: World
  beforeAll(async () => {
    world = await startWorld()
    await world.approve('T-1')
    await world.approve('T-reads', {
      authorization_details: [
        { type: 'http_api', locations: [world.upstream.url], actions: ['GET'], paths: ['/**'] },
      ],
    })
  })
  afterAll(() => world[Symbol.asyncDispose]())

  test.each(['/api/things', '/mcp'])('an allowed agent is asked once: %s', async (path) => {
    const agent = ask(world, { path, headers: world.headers('T-1') })
    expect(await agent.has('\r\n\r\n')).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    agent.socket.write(body)
    await until(
      () => /^HTTP\/1\.1 200 /m.test(agent.text()),
      () => agent.text(),
    )
    expect(agent.text().split(' 100 Continue')).toHaveLength(2)
    agent.socket.destroy()
  })

  test.each([
    ['nobody', '/api/things', 'identity-required', () => ({})],
    ['nobody', '/mcp', 'identity-required', () => ({})],
    ['what policy denies', '/api/things', 'policy-denied', () => world.headers('T-reads')],
  ])('%s is refused and never asked: %s, %s', async (_, path, code, headers) => {
    const agent = ask(world, { path, headers: headers() })
    expect(await agent.ended).toBe('fin')
    expect(agent.text()).toContain(`"code":"${code}"`)
    expect(agent.text()).toMatch(/^HTTP\/1\.1 40[13] /)
    expect(agent.text()).not.toContain('100 Continue')
  })
})

/** Sends a head that announces a body, and waits. */
function ask(
  world: World,
  { path, headers }: { readonly path: string; readonly headers: Readonly<Record<string, string>> },
): Peer {
  const { host, hostname, port } = new URL(world.sidecar.agentUrl)
  const fields = Object.entries({
    Host: host,
    'Content-Type': 'application/json',
    Accept: 'application/json, text/event-stream',
    'Content-Length': String(body.length),
    Expect: '100-continue',
    ...headers,
  })
  const agent = watch(connect(Number(port), hostname))
  const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')
  agent.socket.write(`POST ${path} HTTP/1.1\r\n${lines}\r\n`)
  return agent
}
