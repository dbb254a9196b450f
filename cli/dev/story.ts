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

/** A step of the story did not hold. */
class StepFailed extends Error {}

/**
 * Plays the product's story once and checks each step: approve, allowed call, denied call, live stream, revoke, stream
 * cut, next call refused, audit proof. Resolves false at the first step that does not hold.
 */
export async function playStory(stage: StoryStage): Promise<boolean> {
  try {
    await approveAndCall(stage)
    const rid = await revokeMidStream(stage)
    await proveFromAudit(stage, rid)
    return true
  } catch (error) {
    if (error instanceof StepFailed) return false
    throw error
  }
}

async function approveAndCall(stage: StoryStage): Promise<void> {
  await stage.approve(txn)
  step(stage, {
    holds: true,
    name: 'approved',
    what: `task ${txn}: GET /invoices and /events, for 30 minutes, signed by the approver`,
  })
  const allowed = await call(stage, '/api/invoices')
  const seen = String(field(field(allowed.body, 'caller'), 'txn'))
  step(stage, {
    holds: allowed.status === 200 && seen === txn && !allowed.text.includes(stage.world.svid),
    name: 'allowed',
    what: `GET /api/invoices -> ${allowed.status}; the upstream saw a credential for ${seen}, not the agent's SVID`,
  })
  const denied = await call(stage, '/api/admin/users')
  const code = String(field(denied.body, 'code'))
  step(stage, {
    holds: denied.status === 403 && code === 'policy-denied',
    name: 'denied',
    what: `GET /api/admin/users -> ${denied.status} ${code}`,
  })
}

async function revokeMidStream(stage: StoryStage): Promise<string> {
  const stream = await openStream(stage)
  step(stage, {
    holds: stream.events() > 0,
    name: 'streaming',
    what: `GET /api/events -> ${stream.status}, ${stream.events()} events so far`,
  })
  const before = performance.now()
  const { rid, epoch } = await stage.revoke(txn, 'wrong customer')
  const position = epoch.split(':')[0] ?? ''
  step(stage, {
    holds: true,
    name: 'revoked',
    what: `task ${txn}: "wrong customer", record ${rid}, position ${position}`,
  })
  const { how, atMs } = await stream.ended
  const cutMs = atMs - before
  step(stage, {
    holds: how === 'reset' && cutMs < withinMs,
    name: 'stream cut',
    what: `${how} ${cutMs.toFixed(1)} ms after the operator's command, ${stream.events()} events in all`,
  })
  const from = performance.now()
  const refused = await call(stage, '/api/invoices')
  const code = String(field(refused.body, 'code'))
  step(stage, {
    holds: refused.status === 403 && code === 'task-terminated',
    name: 'next call',
    what: `GET /api/invoices -> ${refused.status} ${code} in ${(performance.now() - from).toFixed(1)} ms`,
  })
  return rid
}

async function proveFromAudit(stage: StoryStage, rid: string): Promise<void> {
  const text = await readFile(stage.auditPath, 'utf8')
  const records = text
    .trim()
    .split('\n')
    .map((line): unknown => JSON.parse(line))
  const at = records.findIndex(
    (one) => field(one, 'type') === 'revocation' && field(one, 'rid') === rid,
  )
  const cut = records.find((one) => field(field(one, 'cut'), 'rid') === rid)
  const after = records.slice(at + 1)
  const attempts = after.filter((one) => field(one, 'after_revocation') === true)
  const acted = after.filter((one) => field(field(one, 'decision'), 'effect') === 'allow')
  step(stage, {
    holds: at >= 0 && cut !== undefined && attempts.length === 1 && acted.length === 0,
    name: 'evidence',
    what: `${records.length} records; acted after revocation: ${acted.length === 0 ? 'no' : 'YES'} (${attempts.length} attempt, refused)`,
  })
  for (const record of [records[at], cut, attempts[0]]) stage.say(`        ${summary(record)}`)
}

function step(
  stage: StoryStage,
  { holds, name, what }: { readonly holds: boolean; readonly name: string; readonly what: string },
): void {
  stage.say(`${holds ? '  ok  ' : ' FAIL '} ${name.padEnd(12)}  ${what}`)
  if (!holds) throw new StepFailed(name)
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
