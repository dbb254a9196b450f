import { createHash } from 'node:crypto'
import { request, type ClientRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { buffer, text } from 'node:stream/consumers'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startWorld, type World } from '../kit/world.ts'

const mebibyte = 1024 * 1024

describe('bodies stream both ways', () => {
  let world: World
  beforeAll(async () => {
    world = await startWorld()
    await world.approve('T-1')
  })
  afterAll(() => world[Symbol.asyncDispose]())

  test('a download of 10 MiB arrives whole', async () => {
    const res = await answerOf(open('/api/sized'))
    expect(res.headers['content-length']).toBe(String(10 * mebibyte))
    const body = await buffer(res)
    expect(body).toHaveLength(10 * mebibyte)
    expect(sha256(body)).toBe(sha256(Buffer.alloc(10 * mebibyte, 'd')))
  })

  test.each([{ framing: 'content-length' }, { framing: 'chunked' }])(
    'an upload of 20 MiB with $framing arrives whole',
    async ({ framing }) => {
      const body = numbered(20 * mebibyte)
      const framed = framing === 'chunked' ? {} : { 'content-length': String(body.length) }
      const req = open('/api/digest', { method: 'POST', fields: framed })
      const answer = answerOf(req)
      // The answer's head comes after the whole body, so the parts are sent with nothing read in between.
      for (let at = 0; at < body.length; at += mebibyte) req.write(body.subarray(at, at + mebibyte))
      req.end()
      expect(JSON.parse(await text(await answer))).toEqual({
        received: body.length,
        sha256: sha256(body),
      })
    },
    60_000,
  )

  test('an upload reaches the upstream while it is still being sent', async () => {
    const req = open('/api/upload', { method: 'POST' })
    const answer = answerOf(req)
    req.write(Buffer.alloc(1_000))
    const { received } = await world.upstream.seen(({ type }) => type === 'uploading')
    expect(received).toBeGreaterThan(0)
    req.end(Buffer.alloc(20 * mebibyte))
    expect(JSON.parse(await text(await answer))).toEqual({ received: 20 * mebibyte + 1_000 })
  })

  test('an upload that its client breaks off ends at the upstream as broken', async () => {
    const req = open('/api/upload?broken', { method: 'POST' })
    const answer = answerOf(req).catch((error: unknown) => error)
    req.write(Buffer.alloc(1_000))
    await world.upstream.seen(({ url }) => url === '/upload?broken')
    req.destroy()
    await answer
    expect(await closed('/upload?broken')).toMatchObject({ complete: false })
  })

  test('a client that leaves an event stream ends it at the upstream', async () => {
    const req = open('/api/sse')
    const res = await answerOf(req)
    expect(String(await firstChunk(res))).toContain('data: 1\n\n')
    req.destroy()
    expect(await closed('/sse')).toMatchObject({ complete: false })
    await outcomeOf('/sse', { status: 200, end: 'client-gone' })
  })

  test('a client that leaves before the head ends the request at the upstream', async () => {
    const req = open('/api/silent')
    const answer = answerOf(req).catch((error: unknown) => error)
    await world.upstream.seen(({ url }) => url === '/silent')
    req.destroy()
    await answer
    expect(await closed('/silent')).toMatchObject({ complete: false })
    await outcomeOf('/silent', { status: null, end: 'client-gone' })
  })

  test('an upstream that dies in mid-body leaves an answer that is not complete', async () => {
    const res = await answerOf(open('/api/broken'))
    expect(res.headers['content-length']).toBe('1000')
    await expect(text(res)).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect(res.complete).toBe(false)
    await outcomeOf('/broken', { status: 200, end: 'upstream-failed', bytes_down: 10 })
  })

  // A client of HTTP/1.0 has nothing but the way the connection ends to tell a whole answer from a part.
  test.each([
    { path: '/broken', version: '1.1' },
    { path: '/broken', version: '1.0' },
    { path: '/broken-chunked', version: '1.1' },
    { path: '/broken-chunked', version: '1.0' },
  ])(
    'an upstream that dies in $path is a reset for HTTP/$version, never a clean end',
    async ({ path, version }) => {
      const { hostname, port } = new URL(world.sidecar.agentUrl)
      const socket = connect(Number(port), hostname)
      const fields = Object.entries({ host: 'localhost', ...world.headers('T-1') })
      const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')
      socket.write(`GET /api${path} HTTP/${version}\r\n${head}\r\n`)
      await expect(buffer(socket)).rejects.toMatchObject({ code: 'ECONNRESET', syscall: 'read' })
      await outcomeOf(path, { status: 200, end: 'upstream-failed' })
    },
  )

  test('a redirect passes and is not followed', async () => {
    const res = await answerOf(open('/api/redirect'))
    expect(res.statusCode).toBe(302)
    expect(res.headers.location).toBe('http://169.254.169.254/latest/')
    expect(await text(res)).toBe('')
  })

  test('an encoded body passes as it is', async () => {
    const res = await answerOf(open('/api/gzip', { fields: { 'accept-encoding': 'gzip' } }))
    expect(res.headers['content-encoding']).toBe('gzip')
    const body = await buffer(res)
    expect(res.headers['content-length']).toBe(String(body.length))
    expect(gunzipSync(body).toString()).toBe('compressed by the upstream')
  })

  test("an upstream's 401 is about our credential: 502, without its challenge", async () => {
    const res = await answerOf(open('/api/unauthorized'))
    expect(res.statusCode).toBe(502)
    expect(res.headers['www-authenticate']).toBeUndefined()
    const body = await text(res)
    expect(JSON.parse(body)).toMatchObject({ code: 'upstream-credential-rejected' })
    expect(body).not.toContain('bad key')
    await outcomeOf('/unauthorized', { status: 502, error: 'upstream-credential-rejected' })
  })

  test('HEAD keeps the length of the body that does not come', async () => {
    const res = await answerOf(open('/api/sized', { method: 'HEAD' }))
    expect(res.statusCode).toBe(200)
    expect(res.headers['content-length']).toBe(String(10 * mebibyte))
    expect(await text(res)).toBe('')
  })

  // Last: it ends the upstream that the tests above share.
  test('an upstream that is not there is 502', async () => {
    await world.upstream[Symbol.asyncDispose]()
    const res = await answerOf(open('/api/gone'))
    expect(res.statusCode).toBe(502)
    expect(JSON.parse(await text(res))).toMatchObject({
      code: 'upstream-unreachable',
      retryable: false,
    })
    await outcomeOf('/gone', { status: 502, error: 'upstream-unreachable' })
  })

  interface OpenOptions {
    readonly method?: string
    readonly fields?: Readonly<Record<string, string>>
  }

  /** Ended at once, but for a POST. */
  function open(path: string, { method = 'GET', fields = {} }: OpenOptions = {}): ClientRequest {
    const headers = { ...world.headers('T-1'), ...fields }
    const url = `${world.sidecar.agentUrl}${path}`
    const req = request(url, { method, headers, agent: false })
    return method === 'POST' ? req : req.end()
  }

  function closed(url: string): Promise<unknown> {
    const { upstream } = world
    return upstream.seen((event) => event.type === 'closed' && event.url === url)
  }

  /** The outcome record comes after the end of the answer. */
  async function outcomeOf(path: string, expected: object): Promise<void> {
    const find = async (): Promise<unknown> => {
      const records = await world.sidecar.audit()
      const decision = records.findLast(
        ({ type, request: asked }) => type === 'decision' && pathOf(asked) === path,
      )
      return records.find(
        ({ type, decision_id: id }) => type === 'outcome' && id === decision?.['decision_id'],
      )
    }
    await expect.poll(find).toMatchObject(expected)
  }
})

function answerOf(req: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    req.once('response', resolve)
    // Stays: a reset after the answer began is told here too.
    req.on('error', reject)
  })
}

async function firstChunk(res: IncomingMessage): Promise<unknown> {
  return new Promise((resolve, reject) => {
    // The test itself breaks the stream off later.
    res.on('error', reject)
    res.once('data', resolve)
  })
}

function pathOf(asked: unknown): unknown {
  return typeof asked === 'object' && asked !== null && 'path' in asked ? asked.path : undefined
}

function sha256(body: Buffer): string {
  return createHash('sha256').update(body).digest('hex')
}

/** No two blocks alike: a lost, doubled or swapped one changes the hash. */
function numbered(length: number): Buffer {
  const body = Buffer.alloc(length)
  for (let at = 0; at + 4 <= length; at += 4) body.writeUInt32LE(at, at)
  return body
}
