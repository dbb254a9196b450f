import { realpathSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { Command } from 'commander'
import { stringify } from 'yaml'
import type { Preset } from '../../config/preset-schema.ts'
import type { PolicyCase } from '../../policy/policy-case.ts'
import { compilePresets } from '../../policy/preset.ts'
import { exitCodes } from '../exit-codes.ts'
import { printable } from '../printable.ts'
import { caseOfRecord } from './case-of-record.ts'
import { decisionsOf } from './policy-diff.ts'
import { configFlags, configText, loadPolicySet } from './policy-set.ts'
import { complain, say } from './say.ts'

interface SuggestOptions {
  readonly fromDenials: string
  readonly config: string
  readonly out: string
}

/** `chaperone policy suggest`: a draft of policies for what none permitted. It never puts one in force. */
export function registerPolicySuggest(policy: Command): void {
  policy
    .command('suggest')
    .description('write a draft of policies and cases for what no policy permitted; never in force')
    .requiredOption('--from-denials <file>', 'audit log')
    .requiredOption(configFlags, configText)
    .requiredOption('-o, --out <path>', 'writes <path>.cedar.draft and <path>.test.yaml.draft')
    .action(async (options: SuggestOptions) => {
      process.exitCode = await suggest(options)
    })
}

async function suggest({ fromDenials, config, out }: SuggestOptions): Promise<number> {
  const { upstreams, policyDirectories } = loadPolicySet({ config })
  const folder = realpathSync(dirname(resolve(out)))
  if (policyDirectories.some((directory) => realpathSync(directory) === folder)) {
    complain(
      `${out}: Expected a path outside the directories of the configuration: a person reads it first`,
    )
    return exitCodes.failed
  }
  const seen = new Map<string, Seen>()
  for await (const record of decisionsOf(fromDenials)) {
    if (record.decision.detail !== 'no policy permits it') continue
    const read = caseOfRecord(record, upstreams)
    if (read.ok) addTo(seen, read.policyCase)
  }
  if (seen.size === 0) {
    say('No denial of the log is one that no policy permitted')
    return exitCodes.failed
  }
  const drafts = [...seen.values()].map(draftOf)
  const policies = compilePresets(
    drafts.map(({ preset }) => preset),
    { file: out },
  ).text
  const note =
    '// A draft from denials. Read each one: that it was asked for does not make it right.\n'
  write(`${out}.cedar.draft`, `${note}${policies}`)
  write(`${out}.test.yaml.draft`, stringify({ cases: drafts.flatMap(({ cases }) => cases) }))
  for (const { preset, count } of drafts) {
    say(
      printable(
        `${String(count).padStart(6)} times  preset/${preset.id}${count === 1 ? '  (seen once)' : ''}`,
      ),
    )
  }
  say(`written to ${out}.cedar.draft and ${out}.test.yaml.draft; nothing is in force`)
  return exitCodes.ok
}

/** A draft of an earlier run may have been worked on. */
function write(path: string, text: string): void {
  writeFileSync(path, text, { flag: 'wx' })
}

/** Denials of one agent at one upstream, with one method or of tools. */
interface Seen {
  readonly first: PolicyCase
  readonly names: Set<string>
  count: number
}

const maxRules = 256
const maxNames = 64

function addTo(seen: Map<string, Seen>, one: PolicyCase): void {
  const { asked, agent, upstream } = one
  // What an MCP client asks besides tools has no preset of its own.
  if (asked.kind === 'message' || asked.kind === 'websocket') return
  const method = asked.kind === 'tool' ? 'tools' : asked.method
  const name = asked.kind === 'tool' ? asked.tool : asked.path
  // A preset is for plain names: a `*` or a quote from a request must not become a pattern.
  if (!/^[\w./~:@%-]{1,256}$/.test(name)) return
  const key = JSON.stringify([agent, upstream.name, method])
  const known = seen.get(key) ?? { first: one, names: new Set<string>(), count: 0 }
  if (!seen.has(key) && seen.size >= maxRules) return
  seen.set(key, known)
  known.count += 1
  if (known.names.size < maxNames) known.names.add(name)
}

interface Draft {
  readonly preset: Preset
  readonly cases: readonly object[]
  readonly count: number
}

function draftOf({ first, names, count }: Seen, index: number): Draft {
  const { agent, upstream, asked, purpose, sensitivity } = first
  const isTool = asked.kind === 'tool'
  const id = `draft-${index + 1}`
  const common = { id, effect: 'allow' as const, agents: [agent], upstreams: [upstream.name] }
  const list = [...names].toSorted()
  const method = asked.kind === 'http' ? asked.method : 'POST'
  const { name, kind, sensitivity: held } = upstream
  const cases = list.map((one) => ({
    name: `${isTool ? 'call' : method} ${one} of ${name}`,
    agent,
    purpose,
    sensitivity,
    upstream: { name, kind, sensitivity: held },
    ...(isTool ? { call: one } : { request: `${method} ${one}` }),
    expect: 'allow',
    by: `preset/${id}`,
  }))
  const preset = isTool ? { ...common, tools: list } : { ...common, methods: [method], paths: list }
  return { preset, cases, count }
}
