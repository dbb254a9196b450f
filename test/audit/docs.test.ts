import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { splitLines, verifyChain } from '../../audit/chain.ts'
import { checkSignatures } from '../../audit/checkpoint.ts'
import { readVerified } from '../../audit/read-file.ts'
import { parseApproverKeys } from '../../policy/approver.ts'

const docs = await readFile(new URL('../../docs/audit.md', import.meta.url), 'utf8')
const source = await readFile(new URL('../../audit/record.ts', import.meta.url), 'utf8')
const lines = docs.split('\n').filter((line) => line.startsWith('{'))
const records = lines.map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
const fields = new Set(records.flatMap((record) => pathsOf(record)))

describe('docs/audit.md', () => {
  test('has an example of every kind of record', () => {
    const kinds = [...source.matchAll(/readonly type: (.+)/g)].flatMap(([, kind = '']) =>
      [...kind.matchAll(/'([\w-]+)'/g)].map(([, name]) => name),
    )
    expect(kinds).toHaveLength(11)
    expect(new Set(records.map((record) => record['type']))).toEqual(new Set(kinds))
  })

  test('has an example of every field that a record may have', () => {
    const declared = [...source.matchAll(/readonly (\w+)\??:/g)].map(([, name = '']) => name)
    expect(declared.length).toBeGreaterThan(60)
    const shown = new Set([...fields].flatMap((path) => path.split('.')))
    expect(declared.filter((name) => !shown.has(name))).toEqual([])
  })

  test('explains every field of its examples', () => {
    expect([...fields].filter((path) => !docs.includes(`\n| \`${path}\` |`))).toEqual([])
  })

  test('verifies when its examples are taken as one log', async () => {
    const bytes = Buffer.from(`${lines.join('\n')}\n`)
    const report = await verifyChain(splitLines(only(bytes)))
    expect(report).toMatchObject({ records: lines.length, chains: 1, torn: [] })
    expect(report.bad).toBeUndefined()
  })

  test('verifies by the key that it shows', async () => {
    const jwks = /echo '(.+)' > checkpoint\.jwks\.json/.exec(docs)?.[1] ?? ''
    const keys = parseApproverKeys(JSON.parse(jwks))
    const check = checkSignatures(new Map(keys.map((key) => [key.kid, key])))
    await readVerified(only(Buffer.from(`${lines.join('\n')}\n`)), {
      use: ({ place, record }) =>
        check.add({ ...place, ...(record?.type === 'checkpoint' && { checkpoint: record }) }),
    })
    expect(check.report()).toEqual({
      checkpoints: 1,
      unsigned: 0,
      signed: { seq: lines.length - 1, ts: '2026-11-24T12:00:12.001Z' },
    })
  })

  test('gives shell commands that agree with the chain when a reader verifies by hand', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'audit-'))
    await writeFile(join(folder, 'audit.ndjson'), `${lines.join('\n')}\n`)
    const byHand = /sed -n 2p .+ \| sha256sum/.exec(docs)?.[0] ?? 'false'
    const printed = execFileSync('bash', ['-c', byHand], { cwd: folder, encoding: 'utf8' })
    await rm(folder, { recursive: true })
    expect(printed.split(' ')[0]).toBe(records[1]?.['hash'])
  })
})

/** `decision.code` and so on: members that hold members count by those, except the free ones of `detail`. */
function pathsOf(value: Readonly<Record<string, unknown>>, prefix = ''): readonly string[] {
  return Object.entries(value).flatMap(([name, member]) => {
    const path = `${prefix}${name}`
    const isFree = path === 'detail'
    return isRecord(member) && !isFree ? pathsOf(member, `${path}.`) : [path]
  })
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

async function* only(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}
