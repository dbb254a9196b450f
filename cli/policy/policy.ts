import { readFileSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { CedarInstance } from '../../policy/cedar-instance.ts'
import { findSuspicious, formatFinding } from '../../policy/findings.ts'
import { exitCodes } from '../exit-codes.ts'
import { printable } from '../printable.ts'
import { compileSet } from './compile-set.ts'
import { registerPolicyDiff } from './policy-diff.ts'
import { registerPolicyExplain } from './policy-explain.ts'
import {
  configFlags,
  configText,
  directoryFlags,
  directoryText,
  loadPolicySet,
  type PolicySetOptions,
} from './policy-set.ts'
import { registerPolicySuggest } from './policy-suggest.ts'
import { testPolicies } from './policy-test.ts'
import { complain, say } from './say.ts'

/** `chaperone policy <verb>`: policies before they are in force, and why they say what they say. */
export function registerPolicy(program: Command): void {
  const policy = program
    .command('policy')
    .description('check, test, explain and format Cedar policies')
  policy
    .command('check')
    .description('compile the policies of a directory against the schema')
    .option(directoryFlags, directoryText)
    .option(configFlags, configText)
    .option('--strict', 'fail on a warning too', false)
    .action((options: PolicySetOptions & { strict: boolean }) => {
      process.exitCode = checkPolicies(options)
    })
  policy
    .command('show')
    .description('print the policies in force, system policies first')
    .option(directoryFlags, directoryText)
    .option(configFlags, configText)
    // The form is said by name, so that another one may come.
    .option('--cedar', 'as Cedar, which "policy check" takes; there is no other form')
    .action((options: PolicySetOptions) => {
      for (const { file, text } of loadPolicySet(options).sources)
        say(`// ${printable(file)}\n${text}`)
    })
  policy
    .command('schema')
    .description('print the schema that policies are checked against')
    .option(configFlags, configText)
    .action((options: PolicySetOptions) => say(loadPolicySet(options).schema))
  policy
    .command('test')
    .description('run the cases of YAML files against the policies')
    .argument('<file...>', 'files of cases')
    .option(directoryFlags, directoryText)
    .option(configFlags, configText)
    .option('--coverage', 'fail when a policy decided no case', false)
    .option('--mutate', 'fail when a policy can be taken out and every case still holds', false)
    .action(
      (files: string[], options: PolicySetOptions & { coverage: boolean; mutate: boolean }) => {
        const { coverage, mutate } = options
        const set = loadPolicySet(options)
        process.exitCode = testPolicies({ set, files, coverage, mutate, say, complain })
      },
    )
  registerPolicyExplain(policy)
  registerPolicyDiff(policy)
  registerPolicySuggest(policy)
  policy
    .command('fmt')
    .description('format policy files in place')
    .argument('<file...>', '*.cedar files')
    .option('--check', 'write nothing, fail when a file is not formatted', false)
    .action((files: string[], { check }: { check: boolean }) => {
      const results = files.map((file) => format(file, { check }))
      process.exitCode = results.every(Boolean) ? exitCodes.ok : exitCodes.failed
    })
}

function checkPolicies({
  strict,
  ...options
}: PolicySetOptions & { readonly strict: boolean }): number {
  const set = loadPolicySet(options)
  const compiled = compileSet(set, { complain })
  if (!compiled) return exitCodes.failed
  using engine = compiled.engine
  const { upstreams } = set
  const found = findSuspicious(compiled.policies, upstreams.size > 0 ? { upstreams } : {})
  for (const one of found) complain(`${formatFinding(one)} (warning)`)
  const warnings = found.length === 0 ? '' : `, ${found.length} warnings`
  say(`${engine.policyIds.length} policies, set ${engine.policySetSha.slice(0, 12)}${warnings}`)
  return strict && found.length > 0 ? exitCodes.failed : exitCodes.ok
}

/** Whether the file is formatted now. */
function format(file: string, { check }: { readonly check: boolean }): boolean {
  const text = readFileSync(file, 'utf8')
  const call = { policyText: text, lineWidth: 100, indentWidth: 2 }
  const answer = new CedarInstance().call(({ formatPolicies }) => formatPolicies(call))
  if (answer?.type !== 'success') {
    const errors = answer?.errors ?? [{ message: 'it may be too deep or too long' }]
    complain(`${file}: ${errors.map(({ message }) => message).join('; ')}`)
    return false
  }
  const formatted = `${answer.formatted_policy.trimEnd()}\n`
  if (formatted === text) return true
  if (check) complain(`${file}: not formatted`)
  else writeFileSync(file, formatted)
  return !check
}
