import { createReadStream } from 'node:fs'
import type { Command } from 'commander'
import { splitLines } from '../../audit/chain.ts'
import { readRecord, type ReadDecision } from '../../audit/read-record.ts'
import { askPolicies } from '../../policy/ask-policies.ts'
import { questionOf, type PolicyCase } from '../../policy/policy-case.ts'
import type { Decision } from '../../policy/types.ts'
import { createArgumentlessEngine } from '../../policy/without-arguments.ts'
import { exitCodes } from '../exit-codes.ts'
import { printable } from '../printable.ts'
import { caseOfRecord } from './case-of-record.ts'
import { compileSet } from './compile-set.ts'
import { configFlags, configText, loadPolicySet, type PolicySet } from './policy-set.ts'
import { complain, say } from './say.ts'

interface DiffOptions {
  readonly against: string
  readonly config: string
}

/** `chaperone policy diff <old> <new>`: which recorded decisions another set of policies would change. */
export function registerPolicyDiff(policy: Command): void {
  policy
    .command('diff')
    .description('ask recorded decisions again of two sets of policies, and print what changes')
    .argument('<old>', 'directory of *.cedar')
    .argument('<new>', 'directory of *.cedar')
    .requiredOption('--against <file>', 'audit log')
    .requiredOption(configFlags, configText)
    .action(async (before: string, after: string, options: DiffOptions) => {
      process.exitCode = await diff([before, after], options)
    })
}

async function diff(
  [before, after]: readonly [string, string],
  { against, config }: DiffOptions,
): Promise<number> {
  const set = loadPolicySet({ directory: before, config })
  using old = openAsker(set)
  using next = openAsker(loadPolicySet({ directory: after, config }))
  if (!old || !next) return exitCodes.failed
  const changes = new Map<string, Group>()
  const untold = new Map<string, number>()
  let asked = 0
  for await (const record of decisionsOf(against)) {
    const read = caseOfRecord(record, set.upstreams)
    const was = read.ok ? old.ask(read) : undefined
    const is = read.ok ? next.ask(read) : undefined
    if (!was || !is) {
      const reason = read.ok ? 'it depends on arguments, which are not recorded' : read.reason
      untold.set(reason, (untold.get(reason) ?? 0) + 1)
      continue
    }
    asked += 1
    if (was.outcome !== is.outcome) addTo(changes, { was, is, record })
  }
  report({ changes, untold, asked })
  return changes.size === 0 ? exitCodes.ok : exitCodes.failed
}

interface Group {
  readonly words: string
  count: number
  readonly examples: string[]
}

interface Change {
  readonly was: Decision
  readonly is: Decision
  readonly record: ReadDecision
}

const maxGroups = 1000
const maxExamples = 3

function addTo(changes: Map<string, Group>, { was, is, record }: Change): void {
  const words = `${was.outcome} -> ${is.outcome}  by ${idsOf(is)}, was by ${idsOf(was)}`
  // More than anybody reads: the rest is counted together.
  const key = changes.has(words) || changes.size < maxGroups ? words : 'others'
  const group = changes.get(key) ?? { words: key, count: 0, examples: [] }
  group.count += 1
  if (group.examples.length < maxExamples) group.examples.push(describe(record))
  changes.set(key, group)
}

function report({
  changes,
  untold,
  asked,
}: {
  readonly changes: ReadonlyMap<string, Group>
  readonly untold: ReadonlyMap<string, number>
  readonly asked: number
}): void {
  const groups = [...changes.values()].toSorted((a, b) => b.count - a.count)
  const total = groups.reduce((sum, { count }) => sum + count, 0)
  say(`${total} of ${asked} decisions would change`)
  for (const { words, count, examples } of groups) {
    say(printable(`${String(count).padStart(7)}  ${words}`))
    for (const example of examples) say(printable(`         ${example}`))
  }
  for (const [reason, count] of untold) say(printable(`${count} cannot be told: ${reason}`))
}

function idsOf({ policyIds = [] }: Decision): string {
  return policyIds.length === 0 ? 'no policy' : policyIds.join(', ')
}

function describe({ decision_id: id, request, upstream, agent }: ReadDecision): string {
  const tool = request.mcp?.tool
  const what = tool === undefined ? `${request.method} ${request.path}` : `call ${tool}`
  return `${id}  ${what} of ${upstream ?? '-'} by ${agent?.spiffe_id ?? '-'}`
}

interface Asker extends Disposable {
  /** Undefined when the record does not hold enough. */
  ask(read: {
    readonly policyCase: PolicyCase
    readonly lacksArguments: boolean
  }): Decision | undefined
}

function openAsker(set: PolicySet): Asker | undefined {
  const compiled = compileSet(set, { complain })
  if (!compiled) return undefined
  const { engine, policies } = compiled
  const argumentless = createArgumentlessEngine(policies, set)
  return {
    ask({ policyCase, lacksArguments }) {
      const question = questionOf(policyCase)
      return lacksArguments ? argumentless?.ask(question) : askPolicies({ ...question, engine })
    },
    [Symbol.dispose]() {
      engine[Symbol.dispose]()
      argumentless?.[Symbol.dispose]()
    },
  }
}

/** Every decision of the log; the chain is not checked. */
export async function* decisionsOf(file: string): AsyncGenerator<ReadDecision> {
  for await (const line of splitLines(createReadStream(file))) {
    const record = readRecord(line)
    if (record?.type === 'decision') yield record
  }
}
