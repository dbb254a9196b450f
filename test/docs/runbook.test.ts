import { execFile } from 'node:child_process'
import { chmod, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { operatorName } from '../kit/lifts.ts'
import { openFlow } from '../kit/live-flows.ts'
import type { SidecarProcess } from '../kit/sidecar.ts'
import { jwksDocument, names, signingKey } from '../kit/tokens.ts'
import { startWorld, type World } from '../kit/world.ts'

/** What is typed and what is then read, as the page has them. */
interface Step {
  readonly command: string
  readonly lines: readonly string[]
  readonly exitCode: number
}

const page = await readFile(new URL('../../docs/runbook.md', import.meta.url), 'utf8')
const sections = page
  .split('\n## ')
  .slice(1)
  .map((text) => ({ title: text.slice(0, text.indexOf('\n')), steps: stepsOf(text) }))

function stepsOf(text: string): readonly Step[] {
  const blocks = [...text.matchAll(/```(\w+)\n([^`]*)```/g)]
  return blocks.flatMap(([, kind, command = ''], at) => {
    if (kind !== 'sh') return []
    const [, next, read = ''] = blocks[at + 1] ?? []
    expect(next, `what is read after: ${command}`).toBe('text')
    const lines = read.trimEnd().split('\n')
    const exitCode = Number(/^\[exit (\d+)\]$/.exec(lines.at(-1) ?? '')?.[1] ?? 0)
    return [{ command, lines: lines.filter((line) => !line.startsWith('[exit')), exitCode }]
  })
}

let world: World
let second: SidecarProcess

beforeAll(async () => {
  const operator = await signingKey()
  world = await startWorld({
    settings: { operators: `operators: [{ name: ${operatorName}, jwks: operators.json }]` },
    revocation: 'denyFile: deny.txt',
    files: {
      'operators.json': jwksDocument([operator]),
      'operator.private.json': JSON.stringify(operator.privateJwk),
      'deny.txt': '# nobody yet\n',
    },
  })
  second = await world.another()
  await mkdir(join(directory(), 'bin'))
  await writeFile(
    join(directory(), 'bin/chaperone'),
    `#!/bin/sh\nexec "${process.execPath}" "${mainPath}" "$@"\n`,
  )
  await chmod(join(directory(), 'bin/chaperone'), 0o755)
  await world.approve('T-1')
  await world.approve('T-2')
}, 60_000)
afterAll(async () => {
  await second[Symbol.asyncDispose]()
  await world[Symbol.asyncDispose]()
})

const mainPath = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

function directory(): string {
  return world.sidecar.directory
}

/** The addresses of a deployment; every other word is as it stands on the page. */
function here(text: string): string {
  return text
    .replaceAll('redis://redis.chaperone.svc:6379', world.redis.url)
    .replaceAll('http://127.0.0.1:15081', world.sidecar.adminUrl)
    .replaceAll('prod.example.org', names.trustDomain)
}

interface Ran {
  readonly code: number
  readonly output: string
}

/** In a shell, in the folder of the configuration. */
function run(command: string): Promise<Ran> {
  const env = { ...process.env, PATH: `${join(directory(), 'bin')}:${process.env['PATH'] ?? ''}` }
  const script = `exec 2>&1\n${here(command)}`
  return new Promise((resolve) => {
    execFile('bash', ['-c', script], { cwd: directory(), env, timeout: 60_000 }, (error, output) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, output }),
    )
  })
}

/** The lines of the page that do not stand in the output, in their order. */
function missing({ lines }: Step, output: string): readonly string[] {
  const printed = output.split('\n')
  let at = 0
  return lines.filter((line) => {
    const words = here(line)
      .split('…')
      .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    // A line that is longer than the page shows begins like it.
    const pattern = new RegExp(`^ *${words.join('.*')}`)
    const found = printed.findIndex((one, index) => index >= at && pattern.test(one))
    if (found !== -1) at = found + 1
    return found === -1
  })
}

const changes = /\b(revoke|pause|quarantine|resume|lift|PUBLISH)\b.* (-r|'task:)/

/** What only asks may be asked until it says so; what changes something is typed once. */
async function play(step: Step): Promise<void> {
  const isOnce = changes.test(step.command) && !step.command.includes('--dry-run')
  const deadline = performance.now() + (isOnce ? 0 : 20_000)
  const wanted = { code: step.exitCode, missing: [] }
  for (;;) {
    const { code, output } = await run(step.command)
    const told = { code, missing: missing(step, output) }
    if (code === step.exitCode && told.missing.length === 0) return
    if (performance.now() > deadline) {
      throw new Error(`${step.command}\n${output}\n${JSON.stringify({ told, wanted }, null, 1)}`)
    }
  }
}

/** The grant travels with the request: it is not the store that answers. */
async function codeOf(txn: string): Promise<string> {
  const headers = { authorization: `Bearer ${world.svid}`, 'task-grant': world.grant(txn) }
  const answer = await fetch(`${world.sidecar.agentUrl}/api/things`, { headers })
  if (answer.status === 200) return 'allowed'
  return ((await answer.json()) as { readonly code: string }).code
}

interface Circumstances {
  /** Makes the symptom. */
  readonly before?: () => Promise<unknown>
  /** What is then so, beyond what was read. */
  readonly after?: () => Promise<unknown>
}

async function stream(txn: string): Promise<void> {
  const flow = openFlow(world, { kind: 'sse', txn })
  await flow.live
}

const poll = { timeout: 20_000, interval: 50 }
const circumstances: Readonly<Record<string, Circumstances>> = {
  'Which task is it': { before: () => stream('T-1') },
  'A task must stop': {
    after: async () => expect(await codeOf('T-1')).toBe('task-terminated'),
  },
  'An agent, an upstream or everything must stop': {
    before: () => stream('T-2'),
    after: async () => expect(await codeOf('T-2')).toBe('task-paused'),
  },
  'It was the wrong one': {
    after: async () => {
      await expect.poll(() => codeOf('T-1'), poll).toBe('allowed')
      expect(await codeOf('T-2')).toBe('allowed')
    },
  },
  'A sidecar does not confirm': {
    before: async () => second.kill('SIGSTOP'),
    after: async () => {
      expect(await codeOf('T-3')).toBe('task-terminated')
      second.kill('SIGCONT')
      await expect.poll(async () => (await world.cli('status')).code, poll).toBe(0)
    },
  },
  'Only redis-cli is at hand': {
    after: async () => expect(await codeOf('T-4')).toBe('task-terminated'),
  },
  'Redis does not answer': {
    before: () => world.redis.kill(),
    after: async () => {
      await expect.poll(() => codeOf('T-5'), poll).toBe('task-terminated')
      expect(await codeOf('T-2')).toBe('control-plane-stale')
    },
  },
  'Redis came back empty, or with an old copy': {
    before: () => world.redis.restart(),
    after: async () => {
      expect(await codeOf('T-3')).toBe('task-terminated')
      expect(await codeOf('T-1')).toBe('allowed')
      // The first that is back gives it all back: the other may find nothing missing.
      expect(world.sidecar.output() + second.output()).toContain('Redis lost revocations')
      const metrics = await (await fetch(`${world.sidecar.adminUrl}/metrics`)).text()
      expect(metrics).toContain('\nchaperone_revocation_missing_in_store 0\n')
    },
  },
  'The auditor asks': {
    before: async () => {
      const logs = { a: world.sidecar, b: second }
      for (const [name, from] of Object.entries(logs)) {
        const log = join(from.directory, 'audit.ndjson')
        await copyFile(log, join(directory(), `audit-${name}.ndjson`))
      }
    },
  },
}

describe('docs/runbook.md', () => {
  test('has a section for every circumstance that is made here, and no other', () => {
    expect(sections.map(({ title }) => title)).toEqual(Object.keys(circumstances))
  })

  for (const { title, steps } of sections) {
    test(`${title}: every command does word for word what the page says`, async () => {
      expect(steps.length).toBeGreaterThan(0)
      const { before, after } = circumstances[title] ?? {}
      await before?.()
      for (const step of steps) await play(step)
      await after?.()
    }, 180_000)
  }
})
