import { readFileSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { CedarInstance } from '../../policy/cedar-instance.ts'
import type { PolicySource } from '../../policy/cedar.ts'
import { loadPolicyFiles } from '../../proxy/policy-files.ts'
import { exitCodes } from '../exit-codes.ts'
import { compileOrReport } from './compile-or-report.ts'
import { testPolicies } from './policy-test.ts'

/** `chaperone policy check|test|show|fmt`: policies before they are in force. */
export function registerPolicy(program: Command): void {
  const policy = program
    .command('policy')
    .description('check, test, show and format Cedar policies')
  policy
    .command('check')
    .description('compile the policies of a directory against the schema')
    .option('-d, --directory <path>', 'directory of *.cedar; default: the shipped default policy')
    .action(({ directory }: DirectoryOption) => {
      using engine = compileOrReport(sourcesOf(directory), { complain })
      if (engine)
        say(`${engine.policyIds.length} policies, set ${engine.policySetSha.slice(0, 12)}`)
      process.exitCode = engine ? exitCodes.ok : exitCodes.failed
    })
  policy
    .command('show')
    .description('print the policies in force, system policies first')
    .option('-d, --directory <path>', 'directory of *.cedar; default: the shipped default policy')
    .action(({ directory }: DirectoryOption) => {
      for (const { file, text } of sourcesOf(directory)) say(`// ${file}\n${text}`)
    })
  policy
    .command('test')
    .description('run the cases of YAML files against the policies')
    .argument('<file...>', 'files of cases')
    .option('-d, --directory <path>', 'directory of *.cedar; default: the shipped default policy')
    .option('--coverage', 'fail when a policy decided no case', false)
    .option('--mutate', 'fail when a policy can be taken out and every case still holds', false)
    .action(
      (files: string[], options: DirectoryOption & { coverage: boolean; mutate: boolean }) => {
        const { directory, coverage, mutate } = options
        const sources = sourcesOf(directory)
        process.exitCode = testPolicies({ sources, files, coverage, mutate, say, complain })
      },
    )
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

interface DirectoryOption {
  readonly directory?: string
}

function sourcesOf(directory: string | undefined): readonly PolicySource[] {
  return loadPolicyFiles(directory === undefined ? {} : { directory })
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

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function complain(line: string): void {
  process.stderr.write(`${line}\n`)
}
