import { createHash } from 'node:crypto'
import canonicalize from 'canonicalize'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ChainError,
  createChain,
  genesis,
  maxLineBytes,
  splitLines,
  verifyChain,
  type ChainReport,
} from '../../audit/chain.ts'
import type { AuditEvent } from '../../audit/record.ts'

const envelope = {
  ts: '2026-11-24T12:00:00.000Z',
  mono_ns: '1000000',
  sidecar: { instance: 'i1', version: '0.1.0', config_sha: 'c1' },
}
const heartbeat: AuditEvent = { type: 'heartbeat', detail: { beat: 1, note: 'é \u0001' } }

describe('createChain()', () => {
  test('seal() hashes the canonical form without the hash when a line is made', () => {
    const chain = createChain()
    const line = chain.seal(heartbeat, envelope)
    const { hash, ...rest } = JSON.parse(line) as Record<string, unknown>
    expect(hash).toBe(
      createHash('sha256')
        .update(canonicalize(rest) ?? '')
        .digest('hex'),
    )
    expect(rest).toEqual({ ...heartbeat, ...envelope, v: 1, seq: 1, prev: '0'.repeat(64) })
    expect(chain.head).toEqual({ seq: 1, hash })
  })

  test('seal() names the line before when the chain goes on', () => {
    const first = createChain()
    first.seal(heartbeat, envelope)
    const line = createChain(first.head).seal(heartbeat, envelope)
    expect(JSON.parse(line)).toMatchObject({ seq: 2, prev: first.head.hash })
  })

  test('seal() throws and uses no number when an event has no canonical form', () => {
    const chain = createChain()
    const broken: AuditEvent = { type: 'start', detail: { text: '\uD800' } }
    expect(() => chain.seal(broken, envelope)).toThrow(ChainError)
    expect(() => chain.seal({ type: 'start', detail: { n: NaN } }, envelope)).toThrow(
      /no canonical/,
    )
    expect(chain.head).toBe(genesis)
  })

  test('seal() throws and uses no number when a record is too long', () => {
    const chain = createChain()
    const long: AuditEvent = { type: 'start', detail: { text: 'x'.repeat(maxLineBytes) } }
    expect(() => chain.seal(long, envelope)).toThrow(`more than ${maxLineBytes} bytes`)
    expect(chain.head).toBe(genesis)
  })
})

describe('verifyChain()', () => {
  test('counts and dates the records when the chain is intact', async () => {
    expect(await verify(sealed(3))).toEqual({
      records: 3,
      chains: 1,
      torn: [],
      first: '2026-11-24T12:00:00.000Z',
      last: '2026-11-24T12:00:02.000Z',
    })
    expect(await verify([])).toEqual({ records: 0, chains: 0, torn: [] })
  })

  test('names the changed line when a value was changed', async () => {
    const lines = sealed(4).with(1, at(sealed(4), 1).replace('"beat":1', '"beat":2'))
    expect(await badOf(lines)).toEqual({ line: 2, fault: 'hash mismatch' })
  })

  test('names the changed line when only its bytes were changed, not its value', async () => {
    const lines = sealed(2)
    expect(await badOf(lines.with(0, `${at(lines, 0)} `))).toEqual({
      line: 1,
      fault: 'hash mismatch',
    })
  })

  test('names the line after the gap when a line was cut out', async () => {
    expect(await badOf(sealed(4).toSpliced(1, 1))).toEqual({ line: 2, fault: 'seq gap' })
    expect(await badOf(sealed(4).toSpliced(0, 1))).toEqual({ line: 1, fault: 'seq gap' })
  })

  test('names the first of them when two lines were swapped', async () => {
    const [a = '', b = '', c = '', d = ''] = sealed(4)
    expect(await badOf([a, c, b, d])).toEqual({ line: 2, fault: 'seq gap' })
  })

  test('names the line that does not follow when one was put in', async () => {
    const lines = sealed(3)
    const forged = createChain({ seq: 1, hash: 'f'.repeat(64) }).seal(heartbeat, envelope)
    expect(await badOf(lines.toSpliced(1, 0, forged))).toEqual({ line: 2, fault: 'prev mismatch' })
    expect(await badOf(lines.toSpliced(1, 0, at(lines, 0)))).toEqual({ line: 2, fault: 'seq gap' })
    expect(await badOf(lines.toSpliced(1, 0, ''))).toEqual({ line: 2, fault: 'not JSON' })
  })

  test('names the line after it when a line was forged with a right hash of its own', async () => {
    const head = { seq: 1, hash: hashOf(at(sealed(3), 0)) }
    const forged = createChain(head).seal({ type: 'stop', detail: {} }, envelope)
    expect(await badOf(sealed(3).with(1, forged))).toEqual({ line: 3, fault: 'prev mismatch' })
  })

  test('reports a torn line as such when the chain goes on after it', async () => {
    const lines = sealed(3)
    const report = await verify(lines.toSpliced(1, 0, at(lines, 1).slice(0, 40)))
    expect(report).toMatchObject({ records: 3, torn: [2] })
    expect(report.bad).toBeUndefined()
  })

  test('calls a line bad when it looks torn and its record is missing', async () => {
    const lines = sealed(3)
    const report = await verify(lines.with(1, at(lines, 1).slice(0, -1)))
    expect(report).toMatchObject({ records: 1, torn: [], bad: { line: 2, fault: 'not JSON' } })
  })

  test('takes a new chain between lines only when restarts are accepted', async () => {
    const lines = [...sealed(2), ...sealed(3)]
    expect(await badOf(lines)).toEqual({ line: 3, fault: 'seq gap' })
    const report = await verifyChain(from(lines), { restarts: true })
    expect(report).toMatchObject({ records: 5, chains: 2 })
    expect(report.bad).toBeUndefined()
  })

  test('finds it when any one byte of a log is changed', async () => {
    const bytes = Buffer.from(`${sealed(3, '\u{FFFD}\u001f').join('\n')}\n`)
    await fc.assert(
      fc.asyncProperty(
        fc.nat(bytes.length - 1),
        fc.integer({ min: 1, max: 255 }),
        async (index, flip) => {
          const changed = Buffer.from(bytes)
          changed[index] = (bytes[index] ?? 0) ^ flip
          const { bad, torn } = await verifyChain(splitLines(from([changed])))
          expect(bad !== undefined || torn.length > 0).toBe(true)
        },
      ),
      { numRuns: 3000 },
    )
  })

  test('finds every change of a character that stands for broken ones', async () => {
    const bytes = Buffer.from(`${sealed(1, '\u{FFFD}').join('\n')}\n`)
    const start = bytes.indexOf('\u{FFFD}')
    for (const index of [start, start + 1, start + 2]) {
      for (let flip = 1; flip < 256; flip += 1) {
        const changed = Buffer.from(bytes)
        changed[index] = (bytes[index] ?? 0) ^ flip
        const { bad } = await verifyChain(splitLines(from([changed])))
        expect(bad, `byte ${index - start} xor ${flip}`).toBeDefined()
      }
    }
  })
})

describe('splitLines()', () => {
  test('gives the same lines when the bytes come in other pieces', async () => {
    const text = 'é1\n\n{"a":"\u{1F600}"}\nlast'
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 30 }), async (size) => {
        const bytes = Buffer.from(text)
        const count = Math.ceil(bytes.length / size)
        const pieces = Array.from({ length: count }, (_, i) =>
          bytes.subarray(i * size, (i + 1) * size),
        )
        expect(await Array.fromAsync(splitLines(from(pieces)))).toEqual(text.split('\n'))
      }),
    )
  })

  test('gives a text that is no record when a line is too long', async () => {
    const long = Buffer.from(`{"a":"${'x'.repeat(maxLineBytes)}"}\nnext\n`)
    expect(await Array.fromAsync(splitLines(from([long])))).toEqual(['\u{FFFD}', 'next'])
  })

  test('gives a torn line when the bytes end within a character', async () => {
    const torn = Buffer.from('{"a":"é').subarray(0, -1)
    const report = await verifyChain(splitLines(from([torn])))
    expect(report).toEqual({ records: 0, chains: 0, torn: [1] })
  })
})

function sealed(count: number, note = ''): readonly string[] {
  const chain = createChain()
  return Array.from({ length: count }, (_, second) =>
    chain.seal(
      { type: 'heartbeat', detail: { beat: second, note } },
      { ...envelope, ts: `2026-11-24T12:00:0${second}.000Z` },
    ),
  )
}

async function verify(lines: readonly string[]): Promise<ChainReport> {
  return verifyChain(from(lines))
}

async function badOf(lines: readonly string[]): Promise<ChainReport['bad']> {
  return (await verify(lines)).bad
}

async function* from<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items
}

function at(lines: readonly string[], index: number): string {
  return lines[index] ?? ''
}

function hashOf(line: string): string {
  const { hash } = JSON.parse(line) as { hash: string }
  return hash
}
