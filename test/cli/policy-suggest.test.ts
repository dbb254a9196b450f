import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { DecisionEvent } from '../../audit/record.ts'
import { decisionEvent, openTestLog } from '../kit/audit-records.ts'
import { runPolicy } from '../kit/run-policy.ts'

let root = ''
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'chaperone-suggest-'))
  await mkdir(join(root, 'policies'))
  const none = '@id("none") forbid (principal, action, resource) when { context.path == "/no" };\n'
  await writeFile(join(root, 'policies', 'a.cedar'), none)
  const example = await readFile(new URL('../../examples/chaperone.yaml', import.meta.url), 'utf8')
  await writeFile(join(root, 'chaperone.yaml'), example)
})
afterEach(() => rm(root, { recursive: true }))

function denied(request: Partial<DecisionEvent['request']>): DecisionEvent {
  const event = decisionEvent({ id: 'd', effect: 'deny' })
  const upstream = request.kind === 'mcp' ? 'tickets' : 'github'
  const decision = { ...event.decision, code: 'policy-denied', detail: 'no policy permits it' }
  const task = event.task && { ...event.task, sensitivity: 'confidential' as const }
  return { ...event, upstream, task, decision, request: { ...event.request, ...request } }
}

async function suggest(
  out: string,
  ...events: readonly DecisionEvent[]
): ReturnType<typeof runPolicy> {
  const path = join(root, 'audit.ndjson')
  await rm(path, { force: true })
  {
    await using log = await openTestLog(path)
    for (const event of events) await log.log.append(event)
  }
  const config = join(root, 'chaperone.yaml')
  return runPolicy('suggest', '--from-denials', path, '-c', config, '-o', join(root, out))
}

const tool = (name: string): DecisionEvent =>
  denied({ kind: 'mcp', method: 'POST', path: '/mcp', mcp: { method: 'tools/call', tool: name } })

describe('chaperone policy suggest', () => {
  test('writes a draft whose cases hold, and puts nothing in force', async () => {
    const events = [
      denied({ path: '/a' }),
      denied({ path: '/b' }),
      denied({ path: '/a' }),
      tool('get'),
    ]
    const { code, out } = await suggest('draft', ...events)
    expect(out).toContain('     3 times  preset/draft-1\n')
    expect(out).toContain('     1 times  preset/draft-2  (seen once)\n')
    expect(code).toBe(0)
    const drafts = join(root, 'read-and-taken')
    await mkdir(drafts)
    await rename(join(root, 'draft.cedar.draft'), join(drafts, 'a.cedar'))
    const cases = join(drafts, 'a.test.yaml')
    await rename(join(root, 'draft.test.yaml.draft'), cases)
    expect(await runPolicy('test', cases, '-d', drafts, '--coverage', '--mutate')).toMatchObject({
      code: 0,
      out: expect.stringContaining('3 held, 0 did not'),
    })
  })

  test('makes no pattern of what an agent chose', async () => {
    const { out, code } = await suggest(
      'draft',
      tool('*'),
      denied({ path: '/**' }),
      denied({ path: '/"' }),
    )
    expect(out).toBe('No denial of the log is one that no policy permitted\n')
    expect(code).toBe(1)
  })

  test('leaves alone what was forbidden, revoked or refused by the grant', async () => {
    const event = denied({})
    const by = (more: Partial<DecisionEvent['decision']>): DecisionEvent => ({
      ...event,
      decision: { ...event.decision, ...more },
    })
    const { code } = await suggest(
      'draft',
      by({ detail: 'a policy forbids it', policy_ids: ['none'] }),
      by({ code: 'task-terminated', detail: 'revoked' }),
      by({ detail: 'grant g: no destination of it allows this' }),
    )
    expect(code).toBe(1)
  })

  test('refuses a directory that a sidecar reads, and to overwrite a draft', async () => {
    expect(await suggest('policies/draft', denied({ path: '/a' }))).toMatchObject({
      code: 1,
      err: expect.stringContaining('Expected a path outside the directories of the configuration'),
    })
    expect((await suggest('draft', denied({ path: '/a' }))).code).toBe(0)
    await expect(suggest('draft', denied({ path: '/a' }))).rejects.toThrow('EEXIST')
  })
})
