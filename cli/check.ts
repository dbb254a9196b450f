import type { Command } from 'commander'
import { formatProblem, loadConfig, type ConfigProblem } from '../config/load.ts'
import { checkReferences, type ReferenceProblem } from './check-references.ts'
import { exitCodes } from './exit-codes.ts'

/**
 * `chaperone check`: everything that can be known offline about a configuration. Ends with 0 when it is good, 1 when
 * what it refers to is not (policies, keys, secrets), 2 on a fault, 3 when the file itself is not valid.
 */
export function registerCheck(program: Command): void {
  program
    .command('check')
    .description('check a configuration with its policies, keys and secrets, offline')
    .option('-c, --config <path>', 'configuration file', 'chaperone.yaml')
    .option('--json', 'write the result as JSON to stdout', false)
    .allowExcessArguments(false)
    .action(({ config, json }: { readonly config: string; readonly json: boolean }) => {
      process.exitCode = check(config, { json })
    })
}

interface Report {
  readonly exitCode: number
  readonly problems: readonly (ConfigProblem | ReferenceProblem)[]
  readonly warnings: readonly ReferenceProblem[]
  readonly summary: string
}

function check(path: string, { json }: { readonly json: boolean }): number {
  try {
    const report = createReport(path)
    if (json) writeJson(report)
    else writeText(report)
    return report.exitCode
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'unknown error'
    process.stderr.write(`${path}: fault: ${reason}\n`)
    return exitCodes.fault
  }
}

function createReport(path: string): Report {
  const loaded = loadConfig(path)
  if (!loaded.ok) {
    const { problems } = loaded
    const summary = `${path}: not valid, ${count(problems.length, 'problem')}`
    return { exitCode: exitCodes.badConfig, problems, warnings: [], summary }
  }
  const { problems, warnings } = checkReferences(loaded.config, { file: path })
  const verdict = problems.length === 0 ? 'good' : 'valid, but what it refers to is not'
  const counts = `${count(problems.length, 'problem')}, ${count(warnings.length, 'warning')}`
  return {
    exitCode: problems.length === 0 ? exitCodes.ok : exitCodes.failed,
    problems,
    warnings,
    summary: `${path}: ${verdict}, ${counts}`,
  }
}

function writeText({ problems, warnings, summary }: Report): void {
  for (const problem of problems) process.stderr.write(`${format(problem)}\n`)
  for (const warning of warnings) process.stderr.write(`${format(warning)} (warning)\n`)
  process.stdout.write(`${summary}\n`)
}

function writeJson({ exitCode, problems, warnings }: Report): void {
  process.stdout.write(
    `${JSON.stringify({ ok: exitCode === exitCodes.ok, problems, warnings }, null, 2)}\n`,
  )
}

function format(problem: ConfigProblem | ReferenceProblem): string {
  if ('path' in problem) return formatProblem(problem)
  const { file, line, col, message, hint } = problem
  return `${file}:${line}:${col} ${message}${hint === undefined ? '' : ` (${hint})`}`
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}
