/**
 * Measures what a policy decision costs: remembered and not, with few policies and many. Run it as `node bench/policy.ts`
 * after a build. Each size is a process of its own, so that its memory is its own.
 */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import type * as Ask from '../policy/ask-policies.ts'
import type * as Cedar from '../policy/cedar.ts'
import type * as Engine from '../policy/cedar-engine.ts'
import type * as Instance from '../policy/cedar-instance.ts'
import type * as Background from '../proxy/build-in-worker.ts'
import type * as Files from '../proxy/policy-files.ts'
import { agent, http, input, rest } from '../test/kit/decide-input.ts'
import { names } from '../test/kit/tokens.ts'

const sizes = [5, 50, 500, 5_000]
const size = process.argv[2]
if (size === undefined) printAll()
else if (size === 'cold') await printCold()
else await printOne(Number(size))

function printAll(): void {
  const self = fileURLToPath(import.meta.url)
  const run = (argument: string): string =>
    execFileSync(process.execPath, [self, argument], { encoding: 'utf8' })
  const head = [
    'policies',
    'hit p50 us',
    'hit p99 us',
    'miss p50 us',
    'miss p99 us',
    'plain p50 us',
    'replaced ms',
    'compile ms',
    'longest stall of a reload ms',
    'RSS MiB',
  ]
  process.stdout.write(`| ${head.join(' | ')} |\n| ${head.map(() => '---').join(' | ')} |\n`)
  for (const one of sizes) process.stdout.write(run(String(one)))
  const colds = Array.from({ length: 5 }, () => Number(run('cold'))).toSorted((a, b) => a - b)
  process.stdout.write(
    `\nShipped policies, new process, first decision after loading began: ${colds.map((ms) => ms.toFixed(0)).join(', ')} ms\n`,
  )
}

async function printCold(): Promise<void> {
  const from = performance.now()
  const { askPolicies, buildPolicySet, createEngine, loadPolicyFiles, cedarSchema } = await load()
  const built = buildPolicySet(loadPolicyFiles({}), { schema: cedarSchema() })
  if (!built.ok) throw new Error('The shipped policies do not compile')
  const decision = askPolicies({ ...input(), engine: createEngine(built.set) })
  if (decision.outcome !== 'allow') throw new Error(decision.detail)
  process.stdout.write(`${performance.now() - from}\n`)
}

async function printOne(count: number): Promise<void> {
  const { askPolicies, buildPolicySet, createEngine, buildInWorker, CedarInstance, cedarSchema } =
    await load()
  const schema = cedarSchema()
  const sources = sourcesOf(count)
  const from = performance.now()
  const built = buildPolicySet(sources, { schema })
  const compileMs = performance.now() - from
  if (!built.ok) throw new Error(JSON.stringify(built.problems.slice(0, 3)))
  const engine = createEngine(built.set)
  const subject = input({ engine, agent, upstream: rest })
  const ask = (path: string): number =>
    timed(() => {
      const decision = askPolicies({ ...subject, operation: http('GET', path) })
      if (decision.outcome !== 'allow') throw new Error(decision.detail)
    })
  const misses = Array.from({ length: 1_500 }, (_, n) => ask(`/v1/a/${n}`)).slice(500)
  for (let n = 0; n < 20_000; n++) ask('/v1/a/hit')
  const hits = Array.from({ length: 20_000 }, () => ask('/v1/a/hit'))
  engine.memo.turnOff()
  const plain = Array.from({ length: 50 }, (_, n) => ask(`/v1/a/${n}`))
  const replacements = Array.from({ length: 5 }, () =>
    timed(() => void new CedarInstance(built.set.image)),
  )
  const rss = process.memoryUsage.rss() / 1024 ** 2
  const stall = await longestStall(async () => {
    const again = await buildInWorker({ sources, schema, cases: [], upstreams: new Map() })
    if (!again.ok) throw new Error('It does not compile in the background')
    createEngine(again.set)
  })
  const us = (values: readonly number[], share: number): string =>
    (quantile(values, share) * 1000).toFixed(1)
  const cells = [
    String(count),
    us(hits, 0.5),
    us(hits, 0.99),
    us(misses, 0.5),
    us(misses, 0.99),
    us(plain, 0.5),
    quantile(replacements, 0.5).toFixed(1),
    compileMs.toFixed(0),
    stall.toFixed(1),
    rss.toFixed(0),
  ]
  process.stdout.write(`| ${cells.join(' | ')} |\n`)
}

type Parts = typeof Ask &
  typeof Cedar &
  typeof Engine &
  typeof Instance &
  typeof Background &
  typeof Files

/** As the command does: the flag must stand before Cedar is compiled, and what runs is the build. */
async function load(): Promise<Parts> {
  setFlagsFromString('--wasm-tiering-budget=1000000000')
  const folder = new URL('../dist/', import.meta.url)
  const files = [
    'policy/ask-policies.js',
    'policy/cedar.js',
    'policy/cedar-engine.js',
    'policy/cedar-instance.js',
    'proxy/build-in-worker.js',
    'proxy/policy-files.js',
  ]
  const modules: object[] = await Promise.all(
    files.map(async (file): Promise<object> => import(new URL(file, folder).href)),
  )
  return Object.assign({}, ...modules)
}

/** Of other teams and upstreams, but for five. */
function sourcesOf(count: number): Cedar.PolicySource[] {
  const policies = Array.from({ length: count }, (_, n) => {
    const isOurs = n < 5
    const who = isOurs ? `spiffe://${names.trustDomain}` : `spiffe://${names.trustDomain}/team${n}`
    const where = isOurs ? rest.name : `upstream${n % 40}`
    return `@id("team/p${n}") permit (principal in Chaperone::AgentGroup::"${who}", action in Chaperone::Action::"read", resource == Chaperone::Upstream::"${where}")
when { context.method == "GET" && context.path like "/v1/a${isOurs ? '' : n}*" && context.task.depth < 3 };`
  })
  const perFile = 500
  return Array.from({ length: Math.ceil(count / perFile) }, (_, n) => ({
    file: `${n}.cedar`,
    text: policies.slice(n * perFile, (n + 1) * perFile).join('\n'),
  }))
}

function timed(work: () => void): number {
  const from = performance.now()
  work()
  return performance.now() - from
}

/** The longest that a turn of the event loop took meanwhile, in milliseconds. */
async function longestStall(work: () => Promise<void>): Promise<number> {
  let longest = 0
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    longest = Math.max(longest, now - last - 1)
    last = now
  }, 1)
  await work()
  await new Promise((resolve) => setTimeout(resolve, 5))
  clearInterval(timer)
  return longest
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
