import { readFileSync } from 'node:fs'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import OpenAI from 'openai'
import { Agent, fetch as fetchWith, type Dispatcher } from 'undici'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  localhostCertFile,
  localhostKeyFile,
  strangerCertFile,
  strangerKeyFile,
} from '../kit/tls.ts'
import { runCli, startWorld, type World } from '../kit/world.ts'

const ca = readFileSync(localhostCertFile, 'utf8')
let world: World
beforeAll(async () => {
  world = await startWorld({
    listen: 'tls: { certFile: cert.pem, keyFile: key.pem }',
    files: { 'cert.pem': ca, 'key.pem': readFileSync(localhostKeyFile, 'utf8') },
  })
  await world.approve('T-1')
}, 60_000)
afterAll(() => world[Symbol.asyncDispose]())

const clients: Agent[] = []
afterEach(async () => {
  for (const client of clients.splice(0)) await client.destroy()
})

function trusting(authority: string, { allowH2 = false } = {}): Agent {
  const client = new Agent({ allowH2, connect: { ca: authority } })
  clients.push(client)
  return client
}

function call(path: string, dispatcher: Dispatcher) {
  return fetchWith(`${world.sidecar.agentUrl}${path}`, {
    dispatcher,
    headers: world.headers('T-1'),
  })
}

describe('agents connect over TLS', () => {
  test.each([
    ['HTTP/1.1', false],
    ['HTTP/2', true],
  ])('a client of %s calls its upstream, with our credential and on record', async (_, allowH2) => {
    const dispatcher = trusting(ca, { allowH2 })
    world.upstream.forget()
    const answer = await call('/api/things', dispatcher)
    expect(answer.status).toBe(200)
    await answer.text()
    const record = await world.sidecar.recorded(({ type }) => type === 'outcome')
    expect(record).toMatchObject({ end: 'complete', txn: 'T-1', status: 200 })
    expect(world.sidecar.agentUrl).toMatch(/^https:/)
  })

  test('an SDK that trusts the certificate works as it is', async () => {
    const dispatcher = trusting(ca)
    const client = new OpenAI({
      apiKey: world.svid,
      baseURL: `${world.sidecar.agentUrl}/llm/v1`,
      defaultHeaders: { 'task-id': 'T-1' },
      maxRetries: 0,
      // The client insists on the library that its dispatcher is of.
      fetch: fetchWith as unknown as typeof fetch,
      fetchOptions: { dispatcher },
    })
    const answered = await client.models.list().asResponse()
    expect(answered.status).toBe(200)
  })

  test('a revocation cuts a stream, as in clear text', async () => {
    await world.approve('T-2')
    const dispatcher = trusting(ca)
    const answer = await fetchWith(`${world.sidecar.agentUrl}/api/sse`, {
      dispatcher,
      headers: world.headers('T-2'),
    })
    const reader = answer.body?.getReader()
    expect((await reader?.read())?.done).toBe(false)
    expect((await world.cli('revoke', 'task:T-2', '--reason', 'test')).code).toBe(0)
    const drain = async (): Promise<void> => {
      while ((await reader?.read())?.done === false);
    }
    await expect(drain()).rejects.toThrow('terminated')
    expect(
      await world.sidecar.recorded(({ type, txn }) => type === 'outcome' && txn === 'T-2'),
    ).toMatchObject({ end: 'cut', cut: { how: 'reset' } })
  })

  test('a client that does not trust the certificate sends nothing', async () => {
    const dispatcher = trusting(readFileSync(strangerCertFile, 'utf8'))
    await expect(call('/api/things', dispatcher)).rejects.toThrow('fetch failed')
  })

  test('a new certificate is taken up without a restart', async () => {
    const { directory } = world.sidecar
    await copyFile(strangerCertFile, join(directory, 'cert.pem'))
    await copyFile(strangerKeyFile, join(directory, 'key.pem'))
    await expect
      .poll(() => world.sidecar.output(), { timeout: 20_000 })
      .toContain("the certificate of the agents' port was replaced")
    const dispatcher = trusting(readFileSync(strangerCertFile, 'utf8'))
    expect((await call('/api/things', dispatcher)).status).toBe(200)
    expect(world.sidecar.output()).not.toContain('BEGIN')
  })

  test('a pair that is none is told by check, with its setting, and keeps it from starting', async () => {
    await using other = await world.another({ listen: '' })
    await copyFile(localhostCertFile, join(other.directory, 'cert.pem'))
    await copyFile(strangerKeyFile, join(other.directory, 'key.pem'))

    const path = join(other.directory, 'tls.yaml')
    const text = await readFile(join(other.directory, 'chaperone.yaml'), 'utf8')
    await writeFile(
      path,
      text.replace('listen: {', 'listen: { tls: { certFile: cert.pem, keyFile: key.pem },'),
    )

    const why = /listen\.tls\.keyFile: .*key\.pem: Expected the key of certFile/
    expect(await runCli(['check', '-c', path])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(why),
    })
    expect(await runCli(['run', '-c', path])).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(why),
    })
  })
})
