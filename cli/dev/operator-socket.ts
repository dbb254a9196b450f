import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import { parseSubject } from '../../policy/subject.ts'
import type { RevocationOp } from '../../policy/types.ts'
import type { Committed, RevocationCommitter } from '../../revocation/feed.ts'

/**
 * Where the operator of `chaperone dev` speaks, in place of Redis: a Unix socket that only its owner may open.
 * `POST /revocations {op, subject, reason, by}` and `POST /tasks {txn}`.
 */
export interface OperatorSocketOptions {
  readonly path: string
  readonly committer: RevocationCommitter
  approve(txn: string): Promise<void>
}

const maxBodyBytes = 4096

/** Listens on the socket until disposed. */
export async function startOperatorSocket(
  options: OperatorSocketOptions,
): Promise<AsyncDisposable> {
  const server = createServer((req, res) => {
    const reply = (status: number, body: unknown): void => {
      res.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`)
    }
    operate(req, options).then(
      (answer) => reply(answer ? 200 : 404, answer ?? { error: 'POST /revocations or /tasks' }),
      (error: unknown) =>
        reply(400, { error: error instanceof Error ? error.message : 'bad request' }),
    )
  })
  const mask = process.umask(0o177)
  await new Promise<void>((resolve) => server.listen(options.path, resolve))
  process.umask(mask)
  return {
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

async function operate(
  req: IncomingMessage,
  options: OperatorSocketOptions,
): Promise<object | undefined> {
  if (req.method !== 'POST') return undefined
  const body = await readJson(req)
  if (req.url === '/tasks') {
    const txn = text(body, 'txn')
    if (parseSubject(`task:${txn}`) === undefined)
      throw new TypeError('Expected a task id of letters, digits, ".", "_", "~" and "-"')
    await options.approve(txn)
    return { txn, approved: true }
  }
  if (req.url !== '/revocations') return undefined
  return revoke(body, options.committer)
}

async function revoke(
  body: Readonly<Record<string, unknown>>,
  committer: RevocationCommitter,
): Promise<Committed & { rid: string }> {
  const subject = parseSubject(text(body, 'subject'))
  if (subject === undefined) throw new TypeError('Expected a subject such as "task:T-1"')
  const rid = randomUUID()
  const committed = await committer.commit({
    rid,
    op: revocationOp(body['op']),
    subject,
    reason: text(body, 'reason'),
    by: typeof body['by'] === 'string' ? body['by'] : 'operator',
    expiresAtMs: 0,
  })
  return { rid, ...committed }
}

function revocationOp(value: unknown): RevocationOp {
  if (value === undefined) return 'revoke'
  if (value === 'revoke' || value === 'pause' || value === 'quarantine') return value
  throw new TypeError('Expected op to be revoke, pause or quarantine')
}

function text(body: Readonly<Record<string, unknown>>, name: string): string {
  const value = body[name]
  if (typeof value !== 'string' || value === '' || value.length > 2048)
    throw new TypeError(`Expected "${name}" to be text`)
  return value
}

async function readJson(req: IncomingMessage): Promise<Readonly<Record<string, unknown>>> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of req) {
    if (!Buffer.isBuffer(chunk)) throw new TypeError('Expected bytes')
    length += chunk.length
    if (length > maxBodyBytes) throw new RangeError(`Expected at most ${maxBodyBytes} bytes`)
    chunks.push(chunk)
  }
  const value: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'))
  if (typeof value !== 'object' || value === null) throw new TypeError('Expected a JSON object')
  return Object.fromEntries(Object.entries(value))
}
