import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openFlow } from '../kit/live-flows.ts'
import { runCli, startWorld, type World } from '../kit/world.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
  await world.approve('T-1')
}, 60_000)
afterAll(() => world[Symbol.asyncDispose]())

describe('rule 44: an uncaught error ends the sidecar', () => {
  test.each([
    ['a listener throws', "throw new TypeError(['text', 'of', 'it'].join('-'))"],
    [
      'a promise rejects unheard',
      "void Promise.reject(new TypeError(['text', 'of', 'it'].join('-')))",
    ],
  ])('when %s: with 2, what was in flight reset, and its text not in the log', async (_, fault) => {
    const provoked = `process.on('SIGUSR2', () => { ${fault} })`
    await using sidecar = await world.another({
      imports: [`data:text/javascript,${encodeURIComponent(provoked)}`],
    })
    const flow = openFlow({ ...world, sidecar }, { kind: 'sse', txn: 'T-1' })
    await flow.live
    sidecar.kill('SIGUSR2')
    expect(await sidecar.exited).toBe(2)
    expect(await flow.ended).toEqual({ how: 'reset' })
    await world.upstream.seen(({ type, url }) => type === 'closed' && url === '/sse')
    await expect(
      fetch(`${sidecar.agentUrl}/api/things`, { headers: world.headers('T-1') }),
    ).rejects.toThrow('fetch failed')
    expect(sidecar.output()).toContain('"msg":"uncaught error: ending"')
    expect(sidecar.output()).toContain('"type":"TypeError"')
    expect(sidecar.output()).not.toContain('text-of-it')
    const verified = await runCli(['audit', 'verify', join(sidecar.directory, 'audit.ndjson')])
    expect(verified).toMatchObject({ code: 0, stdout: expect.stringContaining('chain intact') })
  })
})
