import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { describe, expect, test } from 'vitest'
import { registerAudit } from '../../cli/audit.ts'
import { registerCheck } from '../../cli/check.ts'
import { registerDev } from '../../cli/dev/dev.ts'
import { registerDrill } from '../../cli/drill/drill.ts'
import { exitCodes } from '../../cli/exit-codes.ts'
import { registerKeygen } from '../../cli/keygen.ts'
import { registerLift } from '../../cli/lift.ts'
import { registerPolicy } from '../../cli/policy/policy.ts'
import { registerRevocations } from '../../cli/revocations.ts'
import { registerRevoke } from '../../cli/revoke.ts'
import { registerRun } from '../../cli/run.ts'
import { registerStatus } from '../../cli/status.ts'
import { registerTail } from '../../cli/tail.ts'
import { registerTask } from '../../cli/task.ts'
import { registerTop } from '../../cli/top.ts'

const page = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8')
const main = readFileSync(new URL('../../cli/main.ts', import.meta.url), 'utf8')

const registrations = [
  registerRun,
  registerDev,
  registerCheck,
  registerTask,
  registerRevoke,
  registerLift,
  registerRevocations,
  registerStatus,
  registerTop,
  registerTail,
  registerKeygen,
  registerDrill,
  registerPolicy,
  registerAudit,
]
const program = new Command('chaperone')
for (const register of registrations) register(program)
const commands = leaves(program)

describe('docs/cli.md', () => {
  test('is held against every registration of the program', () => {
    const registered = new Set(main.match(/\bregister[A-Z]\w+/g))
    expect(registrations.map(({ name }) => name).toSorted()).toEqual([...registered].toSorted())
  })

  test('lists the commands of the program and no other', () => {
    const listed = [...page.matchAll(/^\| `([a-z]+(?: [a-z]+)?)` \|/gm)].map(([, name]) =>
      String(name),
    )
    expect(listed.toSorted()).toEqual(commands.map(({ name }) => name).toSorted())
  })

  test.each(commands.flatMap(({ name, flags }) => flags.map((flag) => [name, flag] as const)))(
    'has a row for the option of %s: %s',
    (_name, flag) => expect(page).toContain(`| \`${flag}\` |`),
  )

  test('lists the exit codes of the program and no other', () => {
    const listed = [...page.matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code))
    expect(listed).toEqual(Object.values(exitCodes))
  })
})

interface Leaf {
  readonly name: string
  readonly flags: readonly string[]
}

function leaves(command: Command, prefix = ''): readonly Leaf[] {
  return command.commands.flatMap((child) => {
    const name = `${prefix}${child.name()}`
    if (child.commands.length > 0) return leaves(child, `${name} `)
    return [{ name, flags: child.options.map(({ flags }) => flags) }]
  })
}
