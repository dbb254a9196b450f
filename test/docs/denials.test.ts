import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { denialCodes } from '../../policy/types.ts'
import { denialHeaders, denialStatus, denialText } from '../../proxy/denial.ts'

const page = readFileSync(new URL('../../docs/denials.md', import.meta.url), 'utf8')
const rows = new Map(tableRows(page).map((cells) => [cells[0], cells]))

describe('docs/denials.md', () => {
  test.each(denialCodes)('tells status, words and retry of %s as they are', (code) => {
    const [, status, meaning, words, advice, retry] = rows.get(`\`${code}\``) ?? []
    expect(status).toBe(String(denialStatus(code)))
    expect(words).toBe(denialText({ code }))
    expect(retry).toBe(denialHeaders(code, 'id').includes('retry-after') ? 'yes' : 'no')
    expect(meaning).not.toBe('')
    expect(advice).not.toBe('')
  })

  test('knows no code that the program does not have', () => {
    const listed = [...rows.keys()].flatMap((cell) => /^`([a-z-]+)`$/.exec(cell ?? '')?.[1] ?? [])
    expect(listed).toEqual([...denialCodes])
  })

  test('shows the headers that every denial has', () => {
    const names = denialHeaders('policy-denied', 'id').filter((_, index) => index % 2 === 0)
    for (const name of names) expect(page).toContain(`${name}: `)
  })
})

function tableRows(text: string): readonly (readonly string[])[] {
  const lines = text.split('\n').filter((line) => line.startsWith('| `'))
  return lines.map((line) => line.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, '').trim()))
}
