import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { probes } from './probes.ts'

const page = readFileSync(new URL('../../docs/conformance.md', import.meta.url), 'utf8')
const rows = sectionOf('The rules')
  .split('\n')
  .filter((line) => /^\| +\d/.test(line))
  .map((line) => line.split('|').map((cell) => cell.trim()))
const rules = Array.from({ length: 44 }, (_, index) => index + 1)
const suite = 'test/conformance/rules.test.ts'

describe('docs/conformance.md', () => {
  test('has one row for each rule, in order', () => {
    expect(rows.map(([, rule]) => Number(rule))).toEqual(rules)
  })

  test.each(rows)('%s rule %s names the tests that hold it, or why there is none', (...row) => {
    const [, rule, what, heldBy = '', remark = ''] = row
    const files = [...heldBy.matchAll(/\]\(\.\.\/([^)]+)\)/g)].map(([, file = '']) => file)
    const isExcused = ['out of scope', 'known limit'].includes(heldBy) && remark !== ''
    const isProbed = probes.some((probe) => probe.rule === Number(rule))
    expect(what).not.toBe('')
    expect(files.filter((file) => !existsSync(new URL(`../../${file}`, import.meta.url)))).toEqual(
      [],
    )
    expect(files.length > 0).toBe(!isExcused)
    expect(files.includes(suite)).toBe(isProbed)
  })

  test('has no rule that no test names', () => {
    const named = readdirSync(tests, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.test.ts'))
      .flatMap((name) => rulesNamedIn(readFileSync(new URL(name, tests), 'utf8')))
    const all = new Set([...probes.map(({ rule }) => rule), ...named])
    expect(rules.filter((rule) => !all.has(rule))).toEqual([])
  })

  test('shows the matrix of the probes that there are, and all of them kept here', () => {
    const verdicts = sectionOf('Beside other proxies')
      .split('\n')
      .filter((line) => /^\| +\d/.test(line))
      .map((line) => line.replaceAll('\\|', '').split('|'))
    expect(verdicts.map(([, rule]) => Number(rule))).toEqual(probes.map(({ rule }) => rule))
    expect(verdicts.map(([, , , ours]) => ours?.trim())).toEqual(probes.map(() => 'yes'))
  })
})

const tests = new URL('../', import.meta.url)

/** `test('rule 31: ...` and `describe('rules 32 and 41: ...`. */
function rulesNamedIn(text: string): readonly number[] {
  const titles = [...text.matchAll(/(?:test|describe)\(\s*'rules? ([\d and]+):/g)]
  return titles.flatMap(([, numbers = '']) => numbers.split(' and ').map(Number))
}

function sectionOf(title: string): string {
  return page.split(/^## /m).find((section) => section.startsWith(title)) ?? ''
}
