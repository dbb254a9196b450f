import { readdir, readFile, writeFile } from 'node:fs/promises'
import { Agent, request, type ClientRequest } from 'node:http'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { names, signSvid } from '../kit/tokens.ts'
import { startWorld, type World } from '../kit/world.ts'
import { randomOf } from './schedule.ts'

/** A longer storm: STORM_SECONDS=1800 npx vitest run test/soak/abort-storm. */
const seconds = Number(process.env['STORM_SECONDS'] ?? 10)
/** A replaced configuration lives on for a minute: so many are in memory at once. */
const reloadEveryMs = Number(process.env['RELOAD_MS'] ?? 5_000)
const sampleEveryMs = Math.max(1_000, seconds * 20)

test(
  `${seconds} s of aborts, slow readers, reconnects, reloads and revocations leave nothing behind`,
  async () => {
    // The bounds are not what is tried: a busy machine starves Redis now and then.
    await using world = await startWorld({
      revocation: 'staleAfterWrites: 30s, staleAfterReads: 30s',
    })
    const { svid } = world
    const steadyTask = 'T-steady'
    await world.approve(steadyTask)
    const storm: Storm = {
      world,
      random: randomOf(1),
      counts: new Map(),
      svid,
      steadyTask,
      isOver: false,
    }
    const actors = [
      ...repeat(4, () => steady(storm)),
      ...repeat(4, () => quitting(storm, { method: 'GET', path: '/api/download' })),
      ...repeat(2, () => quitting(storm, { method: 'GET', path: '/api/sse' })),
      ...repeat(2, () => quitting(storm, { method: 'GET', path: '/api/silent' })),
      ...repeat(4, () => quitting(storm, { method: 'POST', path: '/api/upload' })),
      ...repeat(2, () => lazy(storm)),
      renewing(storm),
      revoking(storm),
      reloading(storm),
    ]
    const samples = await sampled(storm)
    storm.isOver = true
    await Promise.all(actors)

    console.info(JSON.stringify(Object.fromEntries(storm.counts)))
    for (const sample of samples) console.info(JSON.stringify(sample))
    // Every actor did its part, and no steady request failed.
    for (const name of ['steady 200', 'quit GET', 'quit POST', 'lazy', 'revoked', 'reloaded']) {
      expect([name, (storm.counts.get(name) ?? 0) > 0]).toEqual([name, true])
    }
    expect([...storm.counts.keys()].filter((name) => /^steady (?!200)/.test(name))).toEqual([])
    // What the storm opened is closed: the connections that are kept are few.
    const { sidecar } = world
    await expect
      .poll(() => metric(world, 'chaperone_exchanges_in_flight'), { timeout: 20_000 })
      .toBe(0)
    await expect
      .poll(async () => (await resources(sidecar.pid)).handles, { timeout: 20_000 })
      .toBeLessThan(80)
    // Memory climbs to what the allocators keep for the storm, within a minute; after that it must not.
    const half = Math.floor(samples.length / 2)
    const growth = median(samples.slice(-5)) / median(samples.slice(Math.max(0, half - 5), half))
    expect(growth).toBeLessThan(seconds < 180 ? 3 : 1.1)
    expect(sidecar.output()).not.toMatch(/unforeseen|uncaught|"level":(?:50|60)/)
  },
  (seconds + 120) * 1_000,
)

interface Storm {
  readonly world: World
  readonly random: () => number
  readonly counts: Map<string, number>
  /** Of the agent, and the task that nobody revokes: replaced before they expire. */
  svid: string
  steadyTask: string
  isOver: boolean
}

function headers({ svid }: Storm, txn: string): Record<string, string> {
  return { authorization: `Bearer ${svid}`, 'task-id': txn }
}

function count({ counts }: Storm, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1)
}

/** Good requests on kept connections: what the storm does to others must not touch them. */
async function steady(storm: Storm): Promise<void> {
  const { world } = storm
  while (!storm.isOver) {
    const answer = await fetch(`${world.sidecar.agentUrl}/api/things`, {
      headers: headers(storm, storm.steadyTask),
    }).catch((error: unknown) => ({ status: String(error), arrayBuffer: async () => undefined }))
    await answer.arrayBuffer()
    count(storm, `steady ${answer.status}`)
    await setTimeout(5)
  }
}

/** Leaves in the middle of something, at a moment of its own choosing. */
async function quitting(
  storm: Storm,
  { method, path }: { readonly method: string; readonly path: string },
): Promise<void> {
  while (!storm.isOver) {
    const asked = ask(storm, { method, path })
    asked.on('response', (answer) => answer.resume())
    const chunk = Buffer.alloc(16_384, 'u')
    if (method === 'POST') for (let n = 0; n < 4; n++) asked.write(chunk)
    else asked.end()
    await setTimeout(storm.random() * 60)
    asked.destroy()
    count(storm, `quit ${method}`)
  }
}

/** Asks for more than the sockets hold and does not read it. */
async function lazy(storm: Storm): Promise<void> {
  while (!storm.isOver) {
    const asked = ask(storm, { method: 'GET', path: '/api/sized' })
    asked.end()
    await setTimeout(200 + storm.random() * 200)
    asked.destroy()
    count(storm, 'lazy')
  }
}

/** Other tokens every minute: an SVID is five minutes long, a grant ten. */
async function renewing(storm: Storm): Promise<void> {
  const { world } = storm
  for (let n = 1; ; n++) {
    await pause(storm, 60_000)
    const txn = `T-steady-${n}`
    if (!(await patiently(storm, () => world.approve(txn)))) return
    storm.steadyTask = txn
    storm.svid = signSvid(world.agentAuthority)
    count(storm, 'renewed')
  }
}

/** A task of its own each time: approved, streaming, revoked, cut. */
async function revoking(storm: Storm): Promise<void> {
  const { world } = storm
  for (let n = 0; !storm.isOver; n++) {
    const txn = `T-storm-${n}`
    if (!(await patiently(storm, () => world.approve(txn)))) return
    const asked = ask(storm, { method: 'GET', path: '/api/sse', txn })
    asked.end()
    const ended = new Promise<void>((resolve) => void asked.on('close', resolve))
    const began = new Promise<void>((resolve) => {
      asked.on('response', (answer) => answer.on('error', () => undefined).once('data', resolve))
    })
    await Promise.race([began, ended])
    const channel = `{chaperone}:${names.trustDomain}:revocations`
    const message = `task:${txn} storm`
    const isTold = await patiently(storm, () => world.redis.cli('PUBLISH', channel, message))
    if (!isTold) asked.destroy()
    await ended
    if (!isTold) return
    count(storm, 'revoked')
  }
}

/** Another configuration each time, by a comment. */
async function reloading(storm: Storm): Promise<void> {
  const path = join(storm.world.sidecar.directory, 'chaperone.yaml')
  const text = await readFile(path, 'utf8')
  for (let n = 0; !storm.isOver; n++) {
    await writeFile(path, `${text}# ${n}\n`)
    count(storm, 'reloaded')
    await pause(storm, reloadEveryMs)
  }
}

/** The test's own client gives up on a Redis that a busy machine starves: asked again until it answers. False at the end. */
async function patiently(storm: Storm, work: () => Promise<unknown>): Promise<boolean> {
  while (!storm.isOver) {
    try {
      await work()
      return true
    } catch {
      count(storm, 'asked Redis again')
      await setTimeout(500)
    }
  }
  return false
}

async function pause(storm: Storm, ms: number): Promise<void> {
  for (let slept = 0; slept < ms && !storm.isOver; slept += 100) await setTimeout(100)
}

const connections = new Agent({ keepAlive: false })

function ask(
  storm: Storm,
  { method, path, txn = storm.steadyTask }: { method: string; path: string; txn?: string },
): ClientRequest {
  const asked = request(`${storm.world.sidecar.agentUrl}${path}`, {
    method,
    agent: connections,
    headers: headers(storm, txn),
  })
  asked.on('error', () => undefined)
  return asked
}

interface Sample {
  readonly seconds: number
  readonly rssMiB: number
  readonly handles: number
}

async function sampled(storm: Storm): Promise<readonly Sample[]> {
  const { world } = storm
  const samples: Sample[] = []
  const from = performance.now()
  while (performance.now() - from < seconds * 1_000) {
    await setTimeout(sampleEveryMs)
    world.upstream.forget()
    const at = Math.round((performance.now() - from) / 1_000)
    samples.push({ seconds: at, ...(await resources(world.sidecar.pid)) })
  }
  return samples
}

async function resources(pid: number): Promise<Omit<Sample, 'seconds'>> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const rssMiB = Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024)
  return { rssMiB, handles: (await readdir(`/proc/${pid}/fd`)).length }
}

async function metric(world: World, name: string): Promise<number> {
  const text = await (await fetch(`${world.sidecar.adminUrl}/metrics`)).text()
  return Number(new RegExp(`^${name} (.+)$`, 'm').exec(text)?.[1])
}

function median(samples: readonly Sample[]): number {
  const sorted = samples.map(({ rssMiB }) => rssMiB).toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

function repeat(times: number, start: () => Promise<void>): readonly Promise<void>[] {
  return Array.from({ length: times }, start)
}
