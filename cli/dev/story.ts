import { readFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import type { DevWorld } from './world.ts'

/** What the demo plays against: the same addresses that a person would use. */
export interface StoryStage {
  readonly agentUrl: string
  readonly world: DevWorld
  readonly auditPath: string
  approve(txn: string): Promise<void>
  revoke(txn: string, reason: string): Promise<{ rid: string; epoch: string }>
  say(line: string): void
}

const txn = 'T-demo-1'
/** How long the cut and the refusal may take before the story does not hold. Generous: this is a check, not a benchmark. */
const withinMs = 5_000

/**
 * Plays the product's story once and checks each step: approve, allowed call, denied call, live stream, revoke, stream
 * cut, next call refused, audit proof. Resolves false at the first step that does not hold.
 */
export async function playStory(stage: StoryStage): Promise<boolean> {
  const { say } = stage
  const tell = (holds: boolean, sentence: string): boolean => {
    say(`${holds ? '  ok  ' : ' FAIL '} ${sentence}`)
    return holds
  }

  await stage.approve(txn)
  if (
    !tell(
      true,
      `approved      task ${txn}: GET /invoices and /events, for 30 minutes, signed by the approver`,
    )
  )
    return false

  const allowed = await call(stage, '/api/invoices')
  const caller = field(allowed.body, 'caller')
  const swapped = field(caller, 'txn') === txn && !allowed.text.includes(stage.world.svid)
  if (
    !tell(
      allowed.status === 200 && swapped,
      `allowed       GET /api/invoices -> ${allowed.status}; the upstream saw a credential for ${String(field(caller, 'txn'))}, not the agent's SVID`,
    )
  )
    return false

  const denied = await call(stage, '/api/admin/users')
  if (
    !tell(
      denied.status === 403 && field(denied.body, 'code') === 'policy-denied',
      `denied        GET /api/admin/users -> ${denied.status} ${String(field(denied.body, 'code'))}`,
    )
  )
    return false

  const stream = await openStream(stage)
  if (
    !tell(
      stream.events() > 0,
      `streaming     GET /api/events -> ${stream.status}, ${stream.events()} events so far`,
    )
  )
    return false

  const before = performance.now()
  const { rid, epoch } = await stage.revoke(txn, 'wrong customer')
  say(
    `  ..   revoked       task ${txn}: "wrong customer", record ${rid}, position ${epoch.split(':')[0]}`,
  )
  const end = await stream.ended
  const cutMs = end.atMs - before
  if (
    !tell(
      end.how === 'reset' && cutMs < withinMs,
      `stream cut    ${end.how} ${cutMs.toFixed(1)} ms after the operator's command, ${stream.events()} events in all`,
    )
  )
    return false

  const refusedFrom = performance.now()
  const refused = await call(stage, '/api/invoices')
  const refusedMs = performance.now() - refusedFrom
  if (
    !tell(
      refused.status === 403 && field(refused.body, 'code') === 'task-terminated',
      `next call     GET /api/invoices -> ${refused.status} ${String(field(refused.body, 'code'))} in ${refusedMs.toFixed(1)} ms`,
    )
  )
    return false

  return proveFromAudit(stage, { rid, tell })
}

async function proveFromAudit(
  { auditPath, say }: StoryStage,
  {
    rid,
    tell,
  }: { readonly rid: string; readonly tell: (holds: boolean, sentence: string) => boolean },
): Promise<boolean> {
  const records = (await readFile(auditPath, 'utf8'))
    .trim()
    .split('\n')
    .map((line): unknown => JSON.parse(line))
  const revocation = records.findIndex(
    (record) => field(record, 'type') === 'revocation' && field(record, 'rid') === rid,
  )
  const cut = records.find((record) => field(field(record, 'cut'), 'rid') === rid)
  const after = records.slice(revocation + 1)
  const attempts = after.filter((record) => field(record, 'after_revocation') === true)
  const passed = after.filter(
    (record) =>
      field(record, 'type') === 'decision' &&
      field(field(record, 'decision'), 'effect') === 'allow',
  )
  const proven =
    revocation >= 0 && cut !== undefined && attempts.length === 1 && passed.length === 0
  tell(
    proven,
    `evidence      ${records.length} records; acted after revocation: ${passed.length === 0 ? 'no' : 'YES'} (${attempts.length} attempt, refused)`,
  )
  for (const record of [records[revocation], cut, attempts[0]])
    if (record !== undefined) say(`         ${summary(record)}`)
  return proven
}

function summary(record: unknown): string {
  const shown = [
    'seq',
    'ts',
    'type',
    'rid',
    'subject',
    'exchanges_cut',
    'decision_id',
    'end',
    'bytes_down',
    'cut',
    'after_revocation',
    'hash',
  ]
  const picked = Object.fromEntries(
    shown.map((name) => [name, field(record, name)]).filter(([, value]) => value !== undefined),
  )
  return JSON.stringify(picked)
}

interface Answer {
  readonly status: number
  readonly text: string
  readonly body: unknown
}

async function call({ agentUrl, world }: StoryStage, path: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const req = httpRequest(`${agentUrl}${path}`, { headers: agentHeaders(world) }, (res) => {
      const chunks: Buffer[] = []
      res.on('data', (chunk: Buffer) => chunks.push(chunk))
      res.on('error', reject)
      res.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8')
        resolve({ status: res.statusCode ?? 0, text, body: JSON.parse(text) })
      })
    })
    req.on('error', reject)
    req.end()
  })
}

interface LiveStream {
  readonly status: number
  events(): number
  readonly ended: Promise<{ how: 'clean' | 'reset'; atMs: number }>
}

function openStream({ agentUrl, world }: StoryStage): Promise<LiveStream> {
  return new Promise((resolve, reject) => {
    const req = httpRequest(`${agentUrl}/api/events`, { headers: agentHeaders(world) }, (res) => {
      let events = 0
      const ended = new Promise<{ how: 'clean' | 'reset'; atMs: number }>((done) => {
        res.on('end', () => done({ how: 'clean', atMs: performance.now() }))
        res.on('error', () => done({ how: 'reset', atMs: performance.now() }))
      })
      const stream = { status: res.statusCode ?? 0, events: () => events, ended }
      res.on('data', (chunk: Buffer) => {
        events += chunk.toString('utf8').split('\n\n').length - 1
        if (events >= 3) resolve(stream)
      })
    })
    req.on('error', reject)
    req.end()
  })
}

function agentHeaders(world: DevWorld): Record<string, string> {
  return { authorization: `Bearer ${world.svid}`, 'task-id': txn }
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  return Object.entries(value).find(([key]) => key === name)?.[1]
}
