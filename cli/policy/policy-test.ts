import { formatProblem } from '../../config/load.ts'
import { compilePolicies, type PolicyEngine } from '../../policy/cedar.ts'
import { isSystemPolicy } from '../../policy/decide.ts'
import { atUpstreamOf, runCase, type PolicyCase } from '../../policy/policy-case.ts'
import { exitCodes } from '../exit-codes.ts'
import { readCaseFile } from '../../proxy/case-file.ts'
import { compileSet } from './compile-set.ts'
import type { PolicySet } from './policy-set.ts'

interface PolicyTestOptions {
  readonly set: PolicySet
  readonly files: readonly string[]
  readonly coverage: boolean
  readonly mutate: boolean
  readonly say: (line: string) => void
  readonly complain: (line: string) => void
}

/** Runs the cases of the files. 0 when all hold and what was asked for on top does too, else 1; 3 for a bad file. */
export function testPolicies(options: PolicyTestOptions): number {
  const { set, files } = options
  const cases: PolicyCase[] = []
  for (const read of files.map(readCaseFile)) {
    if (read.ok) cases.push(...read.cases.map((one) => atUpstreamOf(one, set.upstreams)))
    else for (const problem of read.problems) options.complain(formatProblem(problem))
    if (!read.ok) return exitCodes.badConfig
  }
  const compiled = compileSet(set, options)
  if (!compiled) return exitCodes.failed
  using engine = compiled.engine
  const decided = runAll({ engine, cases }, options)
  const covered = !options.coverage || reportCoverage({ engine, decided }, options)
  const held = !options.mutate || reportMutants({ engine, cases }, options)
  return decided && covered && held ? exitCodes.ok : exitCodes.failed
}

interface Run {
  readonly engine: PolicyEngine
  readonly cases: readonly PolicyCase[]
}

/** The ids that decided a case; undefined when one did not hold. */
function runAll(
  { engine, cases }: Run,
  options: PolicyTestOptions,
): ReadonlySet<string> | undefined {
  const results = cases.map((one) => runCase(one, engine))
  for (const { name, holds, difference } of results) {
    options.say(holds ? `ok    ${name}` : `FAIL  ${name}: ${difference}`)
  }
  const failed = results.filter(({ holds }) => !holds).length
  options.say(`${results.length - failed} held, ${failed} did not`)
  if (failed > 0) return undefined
  return new Set(results.flatMap(({ decision }) => decision.policyIds ?? []))
}

/** A policy that decides no case is one that no case would miss. */
function reportCoverage(
  {
    engine,
    decided,
  }: { readonly engine: PolicyEngine; readonly decided: ReadonlySet<string> | undefined },
  { say }: PolicyTestOptions,
): boolean {
  const silent = engine.policyIds.filter(
    (id) => !isSystemPolicy(id) && !(decided?.has(id) ?? false),
  )
  for (const id of silent) say(`NEVER DECIDED  ${id}`)
  return silent.length === 0
}

/** Takes out one policy after the other: a case must fail each time. */
function reportMutants({ engine, cases }: Run, { set, say }: PolicyTestOptions): boolean {
  const survivors = engine.policyIds.filter((id) => {
    if (isSystemPolicy(id)) return false
    const compiled = compilePolicies(set.sources, { schema: set.schema, without: id })
    if (!compiled.ok) return false
    using mutant = compiled.engine
    return cases.every((one) => runCase(one, mutant).holds)
  })
  for (const id of survivors) say(`NOT HELD  ${id}: without it every case still holds`)
  return survivors.length === 0
}
