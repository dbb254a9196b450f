import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { buildPolicySet, maxPolicyFileBytes, maxPolicyFiles } from '../../policy/cedar.ts'
import { cedarSchema, loadPolicyFiles } from '../../proxy/policy-files.ts'

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'chaperone-files-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

const put = (name: string, text: string): void => writeFileSync(join(directory, name), text)

describe('loadPolicyFiles()', () => {
  test('takes a file exactly as large as the compiler does', () => {
    put('a.cedar', ' '.repeat(maxPolicyFileBytes))
    expect(buildPolicySet(loadPolicyFiles({ directory }), { schema: cedarSchema() }).ok).toBe(true)
    put('a.cedar', ' '.repeat(maxPolicyFileBytes + 1))
    expect(() => loadPolicyFiles({ directory })).toThrow(
      `${directory}/a.cedar: The file has more than ${maxPolicyFileBytes} bytes`,
    )
  })

  test('takes as many files as the compiler does, the shipped ones among them', () => {
    const built = () => buildPolicySet(loadPolicyFiles({ directory }), { schema: cedarSchema() })
    for (let n = 1; n < maxPolicyFiles; n++) put(`${n}.cedar`, '')
    expect(built().ok).toBe(true)
    put('z.cedar', '')
    expect(built()).toMatchObject({
      problems: [{ file: join(directory, 'z.cedar'), message: 'Expected at most 256 files' }],
    })
    put('zz.cedar', '')
    expect(() => loadPolicyFiles({ directory })).toThrow('Expected at most 256 *.cedar files')
  })
})
