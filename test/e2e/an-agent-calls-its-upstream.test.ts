import { createLocalJWKSet, jwtVerify } from 'jose'
import { Octokit } from 'octokit'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { injectedSecret, runCli, startWorld, type World } from '../kit/world.ts'
import { names } from '../kit/tokens.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
  await world.approve('T-1')
})
afterAll(() => world[Symbol.asyncDispose]())

/** What the upstream's echo says that it got. */
interface Echo {
  readonly method: string
  readonly url: string
  readonly rawHeaders: readonly string[]
  readonly body: string
}

function field({ rawHeaders }: Echo, name: string): readonly string[] {
  return rawHeaders.filter(
    (_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === name,
  )
}

async function echo(
  path: string,
  init: {
    readonly method?: string
    readonly body?: string
    readonly headers?: Record<string, string>
  } = {},
): Promise<Echo> {
  const answer = await fetch(`${world.sidecar.agentUrl}${path}`, {
    ...init,
    headers: { ...world.headers('T-1'), ...init.headers },
  })
  expect(answer.status).toBe(200)
  return (await answer.json()) as Echo
}

describe('an agent calls its upstream', () => {
  test('the upstream gets a credential of this task that our JWKS verifies, and nothing of the agent', async () => {
    const seen = await echo('/api/things?a=1', {
      headers: { 'x-api-key': 'sneaky', cookie: 'a=b' },
    })
    expect(seen.url).toBe('/things?a=1')
    const [authorization = '', ...more] = field(seen, 'authorization')
    expect(more).toEqual([])
    const jwks = await (await fetch(`${world.sidecar.adminUrl}/.well-known/jwks.json`)).json()
    const { payload, protectedHeader } = await jwtVerify(
      authorization.replace('Bearer ', ''),
      createLocalJWKSet(jwks as Parameters<typeof createLocalJWKSet>[0]),
      {
        issuer: 'https://chaperone.example.org',
        audience: 'https://api.example.org',
        typ: 'at+jwt',
      },
    )
    expect(protectedHeader.alg).toBe('ES256')
    expect(payload).toMatchObject({ sub: names.agent, txn: 'T-1', purpose: 'invoice-check' })
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(120)
    expect(JSON.stringify(jwks)).not.toContain('"d"')
    expect(JSON.stringify(seen)).not.toContain(world.svid)
    for (const name of ['task-id', 'x-api-key', 'cookie']) expect(field(seen, name)).toEqual([])
  })

  test.each([
    ['x-stainless-retry-count', '2'],
    ['amz-sdk-request', 'attempt=3; max=5'],
    ['x-goog-api-client', 'gl-node/24.1.0 gccl/7.0.0 gccl-attempt-count/3'],
  ])('a retry that %s tells of is on record as the second', async (name, value) => {
    await echo(`/api/retry/${name}`, { headers: { [name]: value } })
    await echo(`/api/garbled/${name}`, { headers: { [name]: 'attempt=many' } })
    const records = await world.sidecar.audit()
    const counts = ['retry', 'garbled'].map((kind) => {
      const found = records.find(
        ({ type, request }) => type === 'decision' && Object(request).path === `/${kind}/${name}`,
      )
      return Object(found?.['request']).retry_count
    })
    expect(counts).toEqual([2, undefined])
  })

  test('a static key is injected into its header or its query, once', async () => {
    const header = await echo('/llm/things')
    expect(field(header, 'authorization')).toEqual([`Bearer ${injectedSecret}`])
    const query = await echo('/key/things?a=1')
    expect(query.url).toBe(`/things?a=1&key=${injectedSecret}`)
    expect(field(query, 'authorization')).toEqual([])
  })

  test('the body arrives byte for byte', async () => {
    const seen = await echo('/api/things', { method: 'POST', body: '{"a":  1}' })
    expect(seen.body).toBe('{"a":  1}')
  })

  test('the official openai client streams', async () => {
    const client = new OpenAI({
      baseURL: `${world.sidecar.agentUrl}/llm/v1`,
      apiKey: world.svid,
      defaultHeaders: { 'Task-Id': 'T-1' },
    })
    const stream = await client.chat.completions.create({
      model: 'm',
      stream: true,
      messages: [{ role: 'user', content: 'hi' }],
    })
    let text = ''
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ''
      if (text.includes('word3')) break
    }
    expect(text).toBe('word1 word2 word3 ')
  })

  test('the official openai client reads why it was denied, and does not retry', async () => {
    world.upstream.forget()
    const client = new OpenAI({
      baseURL: `${world.sidecar.agentUrl}/llm/v1`,
      apiKey: world.svid,
      defaultHeaders: { 'Task-Id': 'T-none' },
    })
    const before = (await world.sidecar.audit()).length
    const call = client.chat.completions.create({
      model: 'm',
      messages: [{ role: 'user', content: 'hi' }],
    })
    await expect(call).rejects.toMatchObject({
      status: 403,
      code: 'task-grant-invalid',
      message: expect.stringContaining('The task grant was not accepted'),
    })
    const after = (await world.sidecar.audit()).slice(before)
    expect(after.filter(({ type }) => type === 'decision')).toHaveLength(1)
    expect(world.upstream.events.filter(({ type }) => type === 'request')).toEqual([])
  })

  test('octokit lists issues', async () => {
    const octokit = new Octokit({
      baseUrl: `${world.sidecar.agentUrl}/t/T-1/github`,
      auth: world.svid,
    })
    const { data } = await octokit.rest.issues.listForRepo({ owner: 'acme', repo: 'shop' })
    expect(data[0]?.title).toBe('first')
  })

  test('a call outside the grant is refused with its reason and never sent', async () => {
    await world.approve('T-narrow', {
      authorization_details: [
        { type: 'http_api', locations: [world.upstream.url], actions: ['GET'], paths: ['/only'] },
      ],
    })
    world.upstream.forget()
    const answer = await fetch(`${world.sidecar.agentUrl}/api/other`, {
      headers: world.headers('T-narrow'),
    })
    expect(answer.status).toBe(403)
    expect(answer.headers.get('x-should-retry')).toBe('false')
    expect(await answer.json()).toMatchObject({
      code: 'policy-denied',
      txn: 'T-narrow',
      retryable: false,
    })
    expect(world.upstream.events.filter(({ type }) => type === 'request')).toEqual([])
    const record = (await world.sidecar.audit()).findLast(({ type }) => type === 'decision')
    expect(record).toMatchObject({
      decision: {
        effect: 'deny',
        code: 'policy-denied',
        detail: expect.stringContaining('no destination'),
      },
      request: { method: 'GET', path: '/other' },
    })
  })

  test('what was decided, forwarded and audited are the same bytes', async () => {
    const seen = await echo('/api/a%20b/c~d?x=%2F..%2F')
    expect(seen.url).toBe('/a%20b/c~d?x=%2F..%2F')
    const record = (await world.sidecar.audit()).findLast(({ type }) => type === 'decision')
    expect(record).toMatchObject({ request: { path: '/a%20b/c~d', has_query: true } })
  })

  test('the audit verifies, and holds no secret', async () => {
    const path = `${world.sidecar.directory}/audit.ndjson`
    const verified = await runCli(['audit', 'verify', path])
    expect(verified).toMatchObject({ code: 0, stdout: expect.stringContaining('chain intact') })
    const everything = JSON.stringify(await world.sidecar.audit()) + world.sidecar.output()
    expect(everything).not.toContain(world.svid)
    expect(everything).not.toContain(world.svid.split('.')[2])
    expect(everything).not.toContain(injectedSecret)
  })
})
