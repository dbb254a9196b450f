import { createReadStream } from 'node:fs'
import type { Command } from 'commander'
import { splitLines } from '../../audit/chain.ts'
import { readRecord, type ReadDecision } from '../../audit/read-record.ts'
import { formatProblem } from '../../config/load.ts'
import type { Policy, PolicyEngine } from '../../policy/cedar.ts'
import { buildCedarRequest } from '../../policy/cedar-request.ts'
import {
  explainPolicies,
  holdingOf,
  nearestPermits,
  type ExplainedClause,
  type ExplainedPolicy,
} from '../../policy/explain.ts'
import { atUpstreamOf, questionOf, runCase, type PolicyCase } from '../../policy/policy-case.ts'
import { exitCodes } from '../exit-codes.ts'
import { printable } from '../printable.ts'
import { readCaseFile } from '../../proxy/case-file.ts'
import { caseOfRecord } from './case-of-record.ts'
import { compileSet } from './compile-set.ts'
import {
  configFlags,
  configText,
  directoryFlags,
  directoryText,
  loadPolicySet,
  type PolicySet,
  type PolicySetOptions,
} from './policy-set.ts'
import { complain, say } from './say.ts'

interface ExplainOptions extends PolicySetOptions {
  readonly audit?: string
  readonly case?: string
}

/** `chaperone policy explain <what>`: why the policies say what they say, down to the clause. */
export function registerPolicyExplain(policy: Command): void {
  policy
    .command('explain')
    .description('say why the policies allow or deny, down to the clause that fails')
    .argument('<what>', 'file of cases; with --audit the id of a decision')
    .option(directoryFlags, directoryText)
    .option(configFlags, configText)
    .option('--case <name>', 'only the case of this name')
    .option('--audit <file>', 'audit log that holds the decision; needs --config')
    .action(async (what: string, options: ExplainOptions) => {
      process.exitCode = await explain(what, options)
    })
}

async function explain(what: string, options: ExplainOptions): Promise<number> {
  const set = loadPolicySet(options)
  const cases =
    options.audit === undefined
      ? casesOf(what, { ...options, set })
      : await recordedCase(what, { set, file: options.audit })
  if (typeof cases === 'number') return cases
  const compiled = compileSet(set, { complain })
  if (!compiled) return exitCodes.failed
  using engine = compiled.engine
  const { policies } = compiled
  const explained = cases.map((one) => explainCase(one, { engine, policies }))
  return explained.every(Boolean) ? exitCodes.ok : exitCodes.failed
}

function casesOf(
  file: string,
  { case: name, set }: ExplainOptions & { readonly set: PolicySet },
): readonly PolicyCase[] | number {
  const read = readCaseFile(file)
  if (!read.ok) {
    for (const problem of read.problems) complain(formatProblem(problem))
    return exitCodes.badConfig
  }
  const named = read.cases.filter((one) => name === undefined || one.name === name)
  const cases = named.map((one) => atUpstreamOf(one, set.upstreams))
  if (cases.length > 0) return cases
  complain(`${file}: Expected a case of the name "${name}"`)
  return exitCodes.failed
}

async function recordedCase(
  id: string,
  { set, file }: { readonly set: PolicySet; readonly file: string },
): Promise<readonly PolicyCase[] | number> {
  const record = await findDecision(id, file)
  if (!record) {
    complain(`${file}: Expected a decision of the id "${printable(id)}"`)
    return exitCodes.failed
  }
  const { decision } = record
  const by = decision.policy_ids.join(', ')
  say(
    printable(`recorded ${decision.effect} ${decision.code ?? ''} ${by} ${decision.detail ?? ''}`),
  )
  const read = caseOfRecord(record, set.upstreams)
  if (!read.ok) {
    complain(`${file}: the decision cannot be asked again: ${read.reason}`)
    return exitCodes.failed
  }
  if (read.lacksArguments) {
    say('The arguments of a tool call are not recorded: it is asked without any.')
  }
  return [read.policyCase]
}

async function findDecision(id: string, file: string): Promise<ReadDecision | undefined> {
  for await (const line of splitLines(createReadStream(file))) {
    const record = line.includes(id) ? readRecord(line) : undefined
    if (record?.type === 'decision' && record.decision_id === id) return record
  }
  return undefined
}

/** Whether it could be explained. */
function explainCase(
  one: PolicyCase,
  { engine, policies }: { readonly engine: PolicyEngine; readonly policies: readonly Policy[] },
): boolean {
  const { decision } = runCase(one, engine)
  const ids = decision.policyIds ?? []
  const by = ids.length > 0 ? `by ${ids.join(', ')}` : 'by no policy'
  const detail = decision.outcome === 'allow' ? '' : `: ${decision.detail}`
  say(printable(`${one.name}: ${decision.outcome} ${by}${detail}`))
  const built = buildCedarRequest(questionOf(one))
  const explained = built.ok ? explainPolicies(policies, built.request) : undefined
  if (!explained) return false
  for (const policy of explained.filter(({ policy: { id } }) => ids.includes(id))) tell(policy)
  for (const policy of explained.filter(hasError)) tell(policy)
  for (const policy of explained.filter(isSilentShadow)) tell(policy)
  if (decision.outcome !== 'allow' && ids.length === 0) tellNearest(explained)
  return true
}

const maxNearest = 3

function tellNearest(explained: readonly ExplainedPolicy[]): void {
  const nearest = nearestPermits(explained, { limit: maxNearest })
  if (nearest.length === 0) say('  there is no permit: write one that covers this request')
  for (const [index, policy] of nearest.entries()) {
    const { clauses } = policy
    say(
      `  ${index === 0 ? 'nearest' : 'next'}: ${holdingOf(policy)} of ${clauses.length} clauses hold`,
    )
    tell(policy)
  }
}

function hasError({ clauses }: ExplainedPolicy): boolean {
  return clauses.some(({ outcome }) => outcome === 'errs')
}

function isSilentShadow({ policy, applies }: ExplainedPolicy): boolean {
  return applies && policy.mode === 'shadow'
}

function tell({ policy, line, col, clauses }: ExplainedPolicy): void {
  const { source, effect, id, reason, severity, stepUp, mode } = policy
  const marks = [severity, stepUp ? 'stepup' : undefined, mode === 'shadow' ? 'shadow' : undefined]
  const words = [effect, id, ...marks.filter((mark) => mark !== undefined)]
  say(`  ${words.join(' ')}  ${source.file}:${line}:${col}`)
  if (reason !== undefined) say(`    reason: ${printable(reason)}`)
  if (clauses.length === 0) say('    it has no condition')
  for (const clause of clauses) tellClause(clause, source.file)
}

const labels = { holds: 'holds', fails: 'FAILS', errs: 'ERRS', 'not-reached': '-' } as const

function tellClause(
  { outcome, part, text, line, col, error }: ExplainedClause,
  file: string,
): void {
  const condition = part === 'when' || part === 'unless' ? `${part} ${text}` : text
  const why = error === undefined ? '' : `: ${error}`
  say(printable(`    ${labels[outcome].padEnd(5)}  ${file}:${line}:${col}  ${condition}${why}`))
}
