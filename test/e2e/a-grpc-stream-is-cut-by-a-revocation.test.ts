import { afterAll, beforeAll, expect, test } from 'vitest'
import { openAgent, startHttp2Upstream, type Asked, type Http2Agent } from '../kit/http2.ts'
import { errorCode } from '../kit/http2-frames.ts'
import { until } from '../kit/relay.ts'
import { startWorld, type World } from '../kit/world.ts'

const service = '/orders.v1.Orders'

let upstream: Awaited<ReturnType<typeof startHttp2Upstream>>
let world: World
let agent: Http2Agent
beforeAll(async () => {
  upstream = await startHttp2Upstream()
  const common = 'allowPrivateAddresses: true, credential: { mint: { audience: "https://orders" } }'
  world = await startWorld({
    settings: {
      upstreams: `upstreams:
  - { name: orders, url: "${upstream.url}", protocol: http2, ${common} }
  - { name: old, url: "${upstream.url}", ${common} }`,
      routes: `routes:
  - { host: orders.localhost, upstream: orders }
  - { prefix: /old, upstream: old }`,
    },
  })
  agent = openAgent(Number(new URL(world.sidecar.agentUrl).port))
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await world[Symbol.asyncDispose]()
  await upstream[Symbol.asyncDispose]()
})

/** Approves one method of the service for a task. */
async function approve(txn: string): Promise<void> {
  await world.approve(txn, {
    authorization_details: [
      {
        type: 'http_api',
        locations: [upstream.url],
        actions: ['POST'],
        paths: [`${service}/Watch`],
      },
    ],
  })
}

function call(
  txn: string,
  { method = 'Watch', authority = 'orders.localhost', prefix = '' } = {},
): Asked {
  return agent.ask(
    {
      ':method': 'POST',
      ':authority': authority,
      ':path': `${prefix}${service}/${method}`,
      te: 'trailers',
      'content-type': 'application/grpc',
      ...world.headers(txn),
    },
    { endStream: false },
  )
}

async function live(txn: string) {
  const asked = call(txn)
  const served = await upstream.next()
  served.stream.respond({ ':status': 200, 'content-type': 'application/grpc' })
  served.stream.write('event')
  await asked.has('event')
  return { asked, served }
}

test('a live call is reset on both sides, its sibling on the same connection goes on, the next call is refused', async () => {
  await Promise.all([approve('T-grpc'), approve('T-sibling')])
  const cut = await live('T-grpc')
  const sibling = await live('T-sibling')
  expect(upstream.sessions).toHaveLength(1)

  const revoked = await world.cli('revoke', 'task', 'T-grpc', '-r', 'wrong customer')
  expect(revoked.code).toBe(0)

  expect(await cut.asked.closed).toBe(errorCode.internal)
  expect(cut.asked.trailers()).toBeUndefined()
  expect(await cut.served.closed).toBe(errorCode.cancel)
  expect(cut.served.isAborted()).toBe(true)

  const { fields, endStream } = await call('T-grpc').head
  expect(endStream).toBe(true)
  expect(fields).toMatchObject({
    ':status': 200,
    'grpc-status': '7',
    'grpc-message': expect.stringMatching(
      /^task-terminated: .*revoked by an operator.*\(decision /,
    ),
    'chaperone-denial': 'task-terminated',
  })

  sibling.asked.stream.write('still here')
  await sibling.served.has('still here')
  sibling.served.stream.write('and answered')
  await sibling.asked.has('and answered')
  sibling.served.stream.end()
  expect(await sibling.asked.closed).toBe(errorCode.none)

  const outcome = await world.sidecar.recorded(
    (one) => one['type'] === 'outcome' && one['txn'] === 'T-grpc' && one['end'] === 'cut',
  )
  expect(outcome).toMatchObject({
    status: 200,
    bytes_down: 'event'.length,
    cut: { code: 'task-terminated', how: 'reset' },
  })
})

test('the operation is POST of the method, and the credential is ours', async () => {
  await approve('T-judged')
  const denied = await call('T-judged', { method: 'Delete' }).head
  expect(denied.fields).toMatchObject({ 'grpc-status': '7', 'chaperone-denial': 'policy-denied' })
  const { served } = await live('T-judged')
  expect(served.fields).toMatchObject({ ':path': `${service}/Watch`, te: 'trailers' })
  expect(served.fields.authorization).toMatch(/^Bearer /)
  expect(served.fields.authorization).not.toContain(world.svid)
  expect(served.fields).not.toHaveProperty('task-id')
  const decision = await world.sidecar.recorded((one) => one['type'] === 'decision')
  expect(decision).toMatchObject({
    request: { method: 'POST', path: `${service}/Watch`, kind: 'http' },
    decision: { effect: 'allow' },
  })
})

test('without an identity the status is UNAUTHENTICATED', async () => {
  const asked = agent.ask({
    ':method': 'POST',
    ':authority': 'orders.localhost',
    ':path': `${service}/Watch`,
    'content-type': 'application/grpc',
  })
  expect((await asked.head).fields).toMatchObject({
    'grpc-status': '16',
    'chaperone-denial': 'identity-required',
  })
})

test('a call to an upstream of HTTP/1 and a call over HTTP/1 are refused', async () => {
  await approve('T-old')
  const seen = upstream.streams.length
  const { fields } = await call('T-old', { authority: 'localhost', prefix: '/old' }).head
  expect(fields).toMatchObject({ 'grpc-status': '3', 'chaperone-denial': 'request-refused' })
  const overHttp1 = await fetch(`${world.sidecar.agentUrl}/old${service}/Watch`, {
    method: 'POST',
    headers: { ...world.headers('T-old'), 'content-type': 'application/grpc' },
  })
  expect(overHttp1.status).toBe(400)
  const details = await Promise.all(
    ['grpc: the upstream does not speak HTTP/2', 'grpc: not over HTTP/2'].map((detail) =>
      world.sidecar.recorded((one) => JSON.stringify(one['decision'] ?? '').includes(detail)),
    ),
  )
  expect(details).toHaveLength(2)
  expect(upstream.streams).toHaveLength(seen)
})

test('SIGTERM lets no new call in, and cuts what is live at the deadline', async () => {
  await approve('T-drain')
  const { asked } = await live('T-drain')
  world.sidecar.kill('SIGTERM')
  expect(await asked.closed).toBe(errorCode.internal)
  await until(() => agent.session.closed || agent.session.destroyed)
  expect(await world.sidecar.exited).toBe(0)
})
