import { describe, expect, test } from 'vitest'
import { parseDenyList } from '../../revocation/deny-list.ts'

describe('parseDenyList()', () => {
  test('reads one subject per line with its reason, and no comment or blank line', () => {
    const text = `# on call, 3 am
task:T-1 wrong customer

  agent:spiffe://example.org/agent/a\tloops # since noon
grant:https://approvals.example.org#g-1
all
`
    expect(parseDenyList(text)).toEqual({
      entries: [
        { line: 2, subject: 'task:T-1', reason: 'wrong customer' },
        { line: 4, subject: 'agent:spiffe://example.org/agent/a', reason: 'loops # since noon' },
        { line: 5, subject: 'grant:https://approvals.example.org#g-1', reason: 'in the deny file' },
        { line: 6, subject: 'all', reason: 'in the deny file' },
      ],
      problems: [],
    })
  })

  test('names the place of a line that it cannot read, and reads the others', () => {
    const { entries, problems } = parseDenyList('task:T-1 a\n  tsak:T-2 secret-looking\ntask:T-3 b')
    expect(entries.map(({ subject }) => subject)).toEqual(['task:T-1', 'task:T-3'])
    expect(problems).toEqual([
      { line: 2, col: 3, message: expect.stringMatching(/^Expected a subject such as task:T-1/) },
    ])
    expect(JSON.stringify(problems)).not.toContain('secret-looking')
  })

  test('reads lines that end with CR LF, and a last one without an end', () => {
    const { entries, problems } = parseDenyList('task:T-1 why\r\ntask:T-2')
    expect(problems).toEqual([])
    expect(entries).toMatchObject([{ subject: 'task:T-1', reason: 'why' }, { subject: 'task:T-2' }])
  })

  test('takes the first of two lines on one subject', () => {
    expect(parseDenyList('task:T-1 first\ntask:T-1 second').entries).toEqual([
      { line: 1, subject: 'task:T-1', reason: 'first' },
    ])
  })
})
