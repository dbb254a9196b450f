import { open } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { setTimeout } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { injectedSecret, startWorld, type World } from '../kit/world.ts'

/** fast-check prints it with the counterexample. */
const runs = { numRuns: 250, seed: 20_260_101 } as const

describe('a request has one reading or none', () => {
  let world: World
  beforeAll(async () => {
    world = await startWorld()
    await world.approve('T-ok', {
      authorization_details: [
        { type: 'http_api', locations: [world.upstream.url], actions: ['GET'], paths: ['/ok/**'] },
      ],
    })
  })
  afterAll(() => world[Symbol.asyncDispose]())

  test('whatever the target: the bytes that were judged, forwarded and recorded are the same', async () => {
    world.upstream.forget()
    await using records = await followDecisions(world)
    const tally: Tally = { forwarded: [], codes: [] }
    const property = fc.asyncProperty(targets, async ({ prefix, path, query }) => {
      const target = `${path}${query}`
      await records.skip()
      const answer = await exchange(world, { target: prefix + target, fields: ownFields(world) })
      if (answer.isUnread) return expectUnread(answer, target)
      const decision = await records.next()
      if (answer.status !== 200) {
        tally.codes.push(answer.code)
        return expectRefusal(answer, { decision, codes: pathCodes })
      }
      tally.forwarded.push(target)
      expectSameBytes(answer, { path, query, decision })
    })
    await fc.assert(property, runs)

    // Each side of the property was met often enough to say something.
    expect(tally.forwarded.length).toBeGreaterThan(20)
    expect(times(tally, 'request-refused')).toBeGreaterThan(20)
    expect(times(tally, 'policy-denied')).toBeGreaterThan(5)
    expect(await seenUntilLast(world)).toEqual(tally.forwarded)
  }, 120_000)

  test('whatever the fields: nothing of the agent passes for ours', async () => {
    world.upstream.forget()
    await using records = await followDecisions(world)
    const tally: Tally = { forwarded: [], codes: [] }
    let n = 0
    const property = fc.asyncProperty(soups, async ({ soup, at }) => {
      const target = `/ok/${++n}`
      const sent = [...soup.slice(0, at), ...ownFields(world), ...soup.slice(at)]
      await records.skip()
      const answer = await exchange(world, { target: `/llm${target}`, fields: sent })
      const decision = await records.next()
      if (answer.status !== 200) {
        tally.codes.push(answer.code)
        return expectRefusal(answer, { decision, codes: fieldCodes })
      }
      tally.forwarded.push(target)
      expectOnlyOurs(world, { sent, arrived: arrivedFields(answer.body) })
    })
    await fc.assert(property, runs)

    expect(tally.forwarded.length).toBeGreaterThan(20)
    for (const code of fieldCodes) expect(times(tally, code)).toBeGreaterThan(5)
    expect(await seenUntilLast(world)).toEqual(tally.forwarded)
  }, 120_000)
})

const pathCodes = ['request-refused', 'policy-denied']
const fieldCodes = ['request-refused', 'credential-ambiguous', 'task-conflict']

/** What came of all runs, in order. */
interface Tally {
  readonly forwarded: string[]
  readonly codes: string[]
}
function times({ codes }: Tally, wanted: string): number {
  return codes.filter((code) => code === wanted).length
}

type Field = readonly [name: string, value: string]

/** Of words: one list item per line would bury them. */
const words = (text: string): readonly string[] => text.split(' ')

const plain = words("ok a b.c ~x caf%C3%A9 a%20b ... a:b x='y' / / /")
const tricky = [
  ...words('.. . %2e %2E%2e .%2e %2f %2F %5c \\ ; ;a=b // %00 %0a %25 %252e%252e %252f %6f%6b'),
  ...words('% %zz %c0%af %c0%ae %EF%BC%8F %E2%80%A4 %EF%BC%8E%EF%BC%8E # | /../ /./ /..;/'),
  ...words('\t \u0000 \u0080'),
]
const pieces = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...plain) },
  { weight: 1, arbitrary: fc.constantFrom(...tricky) },
)
const starts = words('/ok/ /ok/ /ok/ /ok / /secret/ /secret/../ok/ /ok/../secret/')
const queries = words('? ?B=1 ?a=..%2F.. ?/../ ?? ?a=%00 ?a=% ?a=b;c')
const targets = fc.record({
  prefix: fc.constantFrom(...words('/api /api /llm /t/T-ok/api')),
  path: fc
    .tuple(fc.constantFrom(...starts), fc.array(pieces, { maxLength: 5 }))
    .map(([start, rest]) => start + rest.join('')),
  query: fc.oneof(fc.constant(''), fc.constantFrom(...queries)),
})

const evil = 'evil-value'
/** Folded as lenient servers fold: what must not come from an agent. */
const ownedForm =
  /^(?:task-(?:id|grant|approval)|cookie|x-forwarded-.*|forwarded|via|x-real-ip|proxy-.*|x-api-key|chaperone-.*|x-original-.*|x-envoy-.*|x-spiffe-.*|x-http-method-override)$/
const passing = ['X-Plain', 'x-other', 'Accept', 'User-Agent', 'traceparent']
const owned = [
  ...words('X-Forwarded-For x-forwarded-host X-FORWARDED-PROTO Forwarded Via X-Real-IP Cookie'),
  ...words('X-Api-Key Proxy-Authorization Chaperone-Decision X-Original-URL x-envoy-original-path'),
  ...words('X-Spiffe-Id X-HTTP-Method-Override Task-Approval'),
]
const rare = [
  ...words('Authorization authorization AUTHORIZATION Task-Id TASK-ID task-id Task_Id'),
  ...words('X_Forwarded_For x_api_key HTTP_Authorization Host'),
]
const listed = [
  ...words('close X-Plain authorization Task-Id x-forwarded-for proxy-connection task_id'),
  'X-Plain, Authorization, content-length',
  ' , ,x-plain, keep-alive',
]
const fine = fc.constantFrom('fine', '', 'a, b')
const field: fc.Arbitrary<Field> = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(fc.constantFrom(...passing), fine) },
  { weight: 6, arbitrary: fc.tuple(fc.constantFrom(...owned), fc.constant(evil)) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom(...rare), fc.constant(evil)) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('Connection'), fc.constantFrom(...listed)) },
)
const soups = fc.record({ soup: fc.array(field, { maxLength: 8 }), at: fc.nat({ max: 8 }) })

function ownFields(world: World): readonly Field[] {
  return Object.entries(world.headers('T-ok'))
}

function expectUnread({ code }: Answer, target: string): void {
  // Not even a request: nothing that could be decided, nor a path that could be recorded.
  expect(code).toBe('request-refused')
  expect(target).toMatch(/[^\x21-\x7e]/)
}

function expectRefusal(
  { code }: Answer,
  { decision, codes }: { readonly decision: unknown; readonly codes: readonly string[] },
): void {
  expect(codes).toContain(code)
  expect(decision).toMatchObject({ decision: { effect: 'deny', code } })
}

function expectSameBytes(
  { body }: Answer,
  sent: { readonly path: string; readonly query: string; readonly decision: unknown },
): void {
  const { path, query, decision } = sent
  const asked = { path, has_query: query !== '' }
  expect(body).toMatchObject({ url: path + query })
  expect(decision).toMatchObject({ request: asked, decision: { effect: 'allow' } })
  // Other readers than the proxy's: one that decodes more than once, and one that takes dot segments away.
  expect(path).toMatch(/^\/ok\//)
  const decoded = decodeFully(path)
  expect(decoded).not.toMatch(/(?:^|\/)\.{1,2}(?:\/|$)|[\\;?#]/)
  expect(decoded.split('/')).toHaveLength(path.split('/').length)
  expect(new URL(path, 'http://upstream').pathname).toBe(path)
}

function decodeFully(text: string): string {
  return text.includes('%') ? decodeFully(decodeURIComponent(text)) : text
}

function expectOnlyOurs(
  { svid }: World,
  { sent, arrived }: { readonly sent: readonly Field[]; readonly arrived: readonly Field[] },
): void {
  const names = arrived.map(([name]) => name.toLowerCase().replaceAll('_', '-'))
  expect(names.filter((name) => ownedForm.test(name))).toEqual(['via'])
  expect(arrived.filter(([name]) => name === 'via')).toEqual([['via', '1.1 chaperone']])
  expect(arrived.filter(([name]) => name.toLowerCase() === 'authorization')).toEqual([
    ['authorization', `Bearer ${injectedSecret}`],
  ])
  expect(names.filter((name) => name === 'host')).toHaveLength(1)
  expect(JSON.stringify(arrived)).not.toContain(svid)
  expect(JSON.stringify(arrived)).not.toContain(evil)

  const dropped = sent
    .filter(([name]) => name === 'Connection')
    .flatMap(([, value]) => value.split(',').map((option) => option.trim().toLowerCase()))
  const passed = sent.filter(([name]) => passing.includes(name))
  expect(arrived.filter(([name]) => passing.includes(name))).toEqual(
    passed.filter(([name]) => !dropped.includes(name.toLowerCase())),
  )
}

interface Sent {
  readonly target: string
  readonly fields: readonly Field[]
}

interface Answer {
  readonly status: number
  /** Of the refusal; empty when there is none. */
  readonly code: string
  /** A refusal without a decision: the bytes were no request. */
  readonly isUnread: boolean
  readonly body: unknown
}

/** Written by hand on a socket of its own: every client library would tidy it up. */
async function exchange({ sidecar }: World, { target, fields }: Sent): Promise<Answer> {
  const { host, hostname, port } = new URL(sidecar.agentUrl)
  const lines = [['Host', host], ...fields, ['Connection', 'close']]
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')
  const socket = connect(Number(port), hostname)
  socket.setTimeout(15_000, () => socket.destroy(new Error('No answer within 15 s')))
  socket.write(`GET ${target} HTTP/1.1\r\n${lines}\r\n`, 'latin1')
  const answer = (await buffer(socket)).toString('latin1')
  const end = answer.indexOf('\r\n\r\n')
  const head = answer.slice(0, end)
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1])
  const code = /^chaperone-denial: (\S+)\r?$/im.exec(head)?.[1] ?? ''
  const isUnread = status !== 200 && !/^chaperone-decision: \S/im.test(head)
  const rest = answer.slice(end + 4)
  const text = /^transfer-encoding: chunked\r?$/im.test(head) ? unchunked(rest) : rest
  return { status, code, isUnread, body: JSON.parse(text) }
}

function unchunked(rest: string): string {
  const end = rest.indexOf('\r\n')
  const size = Number.parseInt(rest.slice(0, end), 16)
  if (size === 0) return ''
  return rest.slice(end + 2, end + 2 + size) + unchunked(rest.slice(end + size + 4))
}

function arrivedFields(body: unknown): readonly Field[] {
  if (typeof body !== 'object' || body === null || !('rawHeaders' in body)) return []
  const flat = Array.isArray(body.rawHeaders) ? body.rawHeaders.map(String) : []
  return flat.flatMap((name, at): Field[] => (at % 2 === 0 ? [[name, flat[at + 1] ?? '']] : []))
}

/** Everything that the upstream saw, in order, once a last request of ours has come there. */
async function seenUntilLast(world: World): Promise<readonly unknown[]> {
  await exchange(world, { target: '/api/ok/last', fields: ownFields(world) })
  await world.upstream.seen(({ type, url }) => type === 'request' && url === '/ok/last')
  return world.upstream.events
    .filter(({ type, url }) => type === 'request' && url !== '/ok/last')
    .map(({ url }) => url)
}

interface Decisions extends AsyncDisposable {
  /** The next decision record; waits for it. */
  next(): Promise<unknown>
  /** Drops what is there: a run that failed left its records behind. */
  skip(): Promise<void>
}

/** Reads on from where it stopped: the file grows with every run. */
async function followDecisions({ sidecar }: World): Promise<Decisions> {
  const file = await open(join(sidecar.directory, 'audit.ndjson'))
  let position = 0
  let rest = ''
  let decisions: readonly unknown[] = []
  const read = async (): Promise<number> => {
    const chunk = Buffer.alloc(65_536)
    const { bytesRead } = await file.read(chunk, { position })
    position += bytesRead
    const lines = (rest + chunk.toString('utf8', 0, bytesRead)).split('\n')
    rest = lines.pop() ?? ''
    const records = lines.map((line): { readonly type?: unknown } => JSON.parse(line))
    decisions = [...decisions, ...records.filter(({ type }) => type === 'decision')]
    return bytesRead
  }
  return {
    async next() {
      const deadline = performance.now() + 10_000
      while (decisions.length === 0) {
        if ((await read()) > 0) continue
        if (performance.now() > deadline) throw new Error('No decision record within 10 s')
        await setTimeout(5)
      }
      const [first, ...others] = decisions
      decisions = others
      return first
    },
    async skip() {
      while ((await read()) > 0);
      decisions = []
    },
    [Symbol.asyncDispose]: () => file.close(),
  }
}
