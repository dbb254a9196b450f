import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runPolicy } from '../kit/run-policy.ts'

const page = await readFile(new URL('../../docs/tutorial-policy.md', import.meta.url), 'utf8')

interface Block {
  readonly line: number
  readonly info: string
  readonly text: string
}

const blocks: readonly Block[] = [...page.matchAll(/^```(\S.*)\n([^]*?)^```$/gm)].map(
  ({ 1: info = '', 2: text = '', index }) => ({
    line: page.slice(0, index).split('\n').length,
    info,
    text,
  }),
)

let folder = ''
let before = ''
let printed = ''
beforeAll(async () => {
  before = process.cwd()
  folder = await mkdtemp(join(tmpdir(), 'chaperone-tutorial-'))
  process.chdir(folder)
})
afterAll(async () => {
  process.chdir(before)
  await rm(folder, { recursive: true })
})

describe('docs/tutorial-policy.md', () => {
  test('has blocks of every kind', () => {
    const kinds = new Set(blocks.map(({ info }) => info.split(' ')[0]))
    expect(kinds).toEqual(new Set(['yaml', 'sh', 'output', 'cedar', 'json']))
    expect(blocks.length).toBeGreaterThan(15)
  })

  test.each(blocks)('does what it says at line $line: $info', async (block) => {
    expect(await run(block)).toEqual([])
  })
})

/** What is not as the page says. */
async function run({ info, text }: Block): Promise<readonly string[]> {
  const { file, append, replaces } = Object.fromEntries(
    info.split(' ').flatMap((word) => (word.includes('=') ? [word.split('=', 2)] : [])),
  ) as Readonly<Record<string, string>>
  if (info.startsWith('output')) {
    const missing = text.split('\n').filter((line) => !printed.includes(line))
    return missing.length === 0 ? [] : [...missing, printed]
  }
  if (info.startsWith('sh')) return runCommands(text, { fails: info.includes('fails') })
  if (file !== undefined) {
    await mkdir(dirname(join(folder, file)), { recursive: true })
    await writeFile(join(folder, file), text)
    return []
  }
  const path = join(folder, append ?? '')
  const section = new RegExp(`^${replaces}:.*\\n(?: .*\\n)*`, 'm')
  const old = await readFile(path, 'utf8')
  await writeFile(path, old.replace(section, text))
  return section.test(old) ? [] : [`no section ${replaces}`]
}

async function runCommands(
  text: string,
  { fails }: { readonly fails: boolean },
): Promise<readonly string[]> {
  const wrong: string[] = []
  for (const command of text.trim().split('\n')) {
    const words = [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, inQuotes, word]) =>
      String(inQuotes ?? word),
    )
    const { code, out, err } = await runPolicy(...words.slice(2))
    printed = out + err
    const isPolicy = words[0] === 'chaperone' && words[1] === 'policy'
    if (!isPolicy || (code === 0) === fails) wrong.push(`${command}: ${String(code)} ${printed}`)
  }
  return wrong
}
