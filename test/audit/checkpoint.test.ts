import { createReadStream } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createChain } from '../../audit/chain.ts'
import {
  checkSignatures,
  startCheckpoints,
  type CheckpointOptions,
  type SignatureReport,
} from '../../audit/checkpoint.ts'
import type { AuditLog } from '../../audit/log.ts'
import { readVerified } from '../../audit/read-file.ts'
import { parseApproverKeys } from '../../policy/approver.ts'
import { logStartMs, openTestLog } from '../kit/audit-records.ts'
import { manualClock } from '../kit/manual-clock.ts'
import { jwksDocument, signingKey, type SigningKey } from '../kit/tokens.ts'

let folder = ''
let path = ''
let key: SigningKey

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-'))
  path = join(folder, 'audit.ndjson')
  key = await signingKey('EdDSA')
})
afterEach(() => rm(folder, { recursive: true }))

describe('startCheckpoints()', () => {
  test.each(['EdDSA', 'ES256'])('signs the record before it with %s when disposed', async (alg) => {
    key = await signingKey(alg)
    await signedLog()
    const records = await readRecords()
    expect(records.map(({ type }) => type)).toEqual(['heartbeat', 'heartbeat', 'checkpoint'])
    const [, last, checkpoint] = records
    expect(checkpoint?.['checkpoint']).toMatchObject({ seq: 2, hash: last?.['hash'], records: 2 })
    expect(await signaturesOf(path)).toEqual({
      checkpoints: 1,
      unsigned: 0,
      signed: { seq: 2, ts: new Date(logStartMs).toISOString() },
    })
  })

  test('signs at the interval, and only when the log has grown', async () => {
    await using opened = await openTestLog(path)
    await using _checkpoints = startCheckpoints(opened.log, { ...optionsFor(), everyMs: 10 })
    await beat(opened.log)
    const deadline = performance.now() + 10_000
    while (opened.log.head.seq < 2 && performance.now() < deadline) await pause(5)
    await pause(60)
    expect(opened.log.head.seq).toBe(2)
    await beat(opened.log)
    while (opened.log.head.seq < 4 && performance.now() < deadline) await pause(5)
    await opened.log.flush()
    const types = (await readRecords()).map(({ type }) => type)
    expect(types).toEqual(['heartbeat', 'checkpoint', 'heartbeat', 'checkpoint'])
    expect((await signaturesOf(path)).bad).toBeUndefined()
  })

  test.each([
    ['not JSON', '-----BEGIN PRIVATE KEY-----', 'Expected a private JWK or JWK Set'],
    ['without kid', '{"kty":"OKP","crv":"Ed25519"}', 'Expected a key with "kid"'],
    ['on another curve', '{"kid":"k","crv":"P-384"}', 'Expected a key with crv P-256 or Ed25519'],
    ['public', '', 'Expected a private key'],
  ])('throws and quotes nothing when the key is %s', async (_, text, message) => {
    await using opened = await openTestLog(path)
    const keys = text === '' ? JSON.stringify(key.publicJwk) : text
    expect(() => startCheckpoints(opened.log, { ...optionsFor(), keys: () => keys })).toThrow(
      expect.objectContaining({
        code: 'ERR_AUDIT_KEY',
        message: `The key for audit checkpoints: ${message}`,
      }),
    )
  })

  test('tells of the fault and signs the whole later when the key is missing for a while', async () => {
    await using opened = await openTestLog(path)
    const errors: unknown[] = []
    let isThere = true
    const options = { ...optionsFor(), onError: (error: unknown) => errors.push(error) }
    const keys = (): string => {
      if (isThere) return options.keys()
      throw new Error('gone')
    }
    const first = startCheckpoints(opened.log, { ...options, keys })
    await beat(opened.log)
    isThere = false
    await first[Symbol.asyncDispose]()
    expect(errors).toEqual([new Error('gone')])
    isThere = true
    await first[Symbol.asyncDispose]()
    expect(await signaturesOf(path)).toMatchObject({ checkpoints: 1, signed: { seq: 1 } })
  })
})

describe('startCheckpoints() with a store', () => {
  test('puts each there once it is in the log, and signs where the fleet was', async () => {
    await using opened = await openTestLog(path)
    const put: unknown[] = []
    const outcomes: string[] = []
    const store = {
      put: async (checkpoint: object) => {
        put.push({ ...checkpoint, inLog: (await readRecords()).length })
        if (put.length === 2) throw new Error('gone')
        return fleet
      },
    }
    const options = { ...optionsFor(), store, onStored: (one: string) => outcomes.push(one) }
    const checkpoints = startCheckpoints(opened.log, options)
    for (let n = 0; n < 3; n++) {
      await beat(opened.log)
      await checkpoints[Symbol.asyncDispose]()
    }
    expect(put).toMatchObject([
      { instance: 'i1', seq: 1, inLog: 2 },
      { instance: 'i1', seq: 3, inLog: 4 },
      { instance: 'i1', seq: 5, inLog: 6 },
    ])
    expect(outcomes).toEqual(['stored', 'failed', 'stored'])
    const seen = (await readRecords()).flatMap(({ checkpoint }) =>
      checkpoint === undefined ? [] : [Object(checkpoint).fleet],
    )
    expect(seen).toEqual([undefined, fleet, fleet])
    expect(await signaturesOf(path)).toMatchObject({ checkpoints: 3 })
  })

  test('lets nobody say that the fleet was elsewhere', async () => {
    const other = `8:${'b'.repeat(40)}`
    {
      await using opened = await openTestLog(path)
      const checkpoints = startCheckpoints(opened.log, {
        ...optionsFor(),
        store: { put: async () => fleet },
      })
      for (let n = 0; n < 2; n++) {
        await beat(opened.log)
        await checkpoints[Symbol.asyncDispose]()
      }
    }
    const chain = createChain()
    const forged = (await readRecords()).map(
      ({ seq: _seq, prev: _prev, hash: _hash, v: _v, ts, mono_ns, sidecar, ...event }, at) => {
        const moved = { ...event, checkpoint: { ...Object(event['checkpoint']), fleet: other } }
        return chain.seal((at === 3 ? moved : event) as never, { ts, mono_ns, sidecar } as never)
      },
    )
    await writeFile(path, `${forged.join('\n')}\n`)
    expect((await signaturesOf(path)).bad).toBe(
      'record 4: the signature is about another place in the fleet',
    )
  })
})

describe('checkSignatures()', () => {
  test('finds the forgery when the log was sealed anew with its checkpoint in place', async () => {
    await signedLog()
    const records = await readRecords()
    const chain = createChain()
    const forged = records.map(
      ({ seq: _seq, prev: _prev, hash: _hash, v: _v, ts, mono_ns, sidecar, ...event }, at) => {
        const changed = at === 0 ? { ...event, detail: { n: 'forged' } } : event
        const { head } = chain
        const own = event['checkpoint'] as object | undefined
        const moved = own ? { ...changed, checkpoint: { ...own, hash: head.hash } } : changed
        return chain.seal(moved as never, { ts, mono_ns, sidecar } as never)
      },
    )
    await writeFile(path, `${forged.join('\n')}\n`)
    expect((await signaturesOf(path)).bad).toBe('record 3: the signature is about another record')
  })

  test('says that the key is not known when another one signed', async () => {
    await signedLog()
    expect((await signaturesOf(path, await signingKey('EdDSA'))).bad).toBe(
      'record 3: the key of the signature is not known',
    )
  })

  test('says that the signature does not verify when it is of another key with the same name', async () => {
    await signedLog()
    expect((await signaturesOf(path, await signingKey('EdDSA', { kid: key.kid }))).bad).toBe(
      'record 3: the signature does not verify',
    )
  })

  test('says that there is none when the checkpoints were cut off', async () => {
    await signedLog()
    const lines = (await readFile(path, 'utf8')).split('\n')
    await writeFile(path, `${lines.slice(0, 2).join('\n')}\n`)
    expect(await signaturesOf(path)).toEqual({
      checkpoints: 0,
      unsigned: 2,
      bad: 'no signed checkpoint',
    })
  })

  test('asks every chain for a checkpoint when there are several', async () => {
    await signedLog()
    const signed = await readFile(path, 'utf8')
    const unsigned = signed.split('\n')[0] ?? ''
    await writeFile(path, `${unsigned}\n${signed}`)
    expect((await signaturesOf(path)).bad).toBe('no signed checkpoint')
    await writeFile(path, signed + signed)
    expect(await signaturesOf(path)).toMatchObject({ checkpoints: 2, unsigned: 0 })
  })

  test('counts what no signature covers yet', async () => {
    await signedLog()
    await using opened = await openTestLog(path)
    await beat(opened.log)
    expect(await signaturesOf(path)).toMatchObject({ signed: { seq: 2 }, unsigned: 1 })
  })
})

const fleet = `7:${'a'.repeat(40)}`

type RawRecord = Readonly<Record<string, unknown>>

async function signedLog(): Promise<void> {
  await using opened = await openTestLog(path)
  await using _checkpoints = startCheckpoints(opened.log, optionsFor())
  await beat(opened.log)
  await beat(opened.log)
}

function optionsFor(): CheckpointOptions {
  return {
    keys: () => JSON.stringify({ keys: [key.privateJwk] }),
    everyMs: 60_000,
    instance: 'i1',
    clock: manualClock(logStartMs),
    onError: (error) => {
      throw error
    },
  }
}

function beat(log: AuditLog): Promise<void> {
  return log.append({ type: 'heartbeat', detail: {} })
}

async function readRecords(): Promise<readonly RawRecord[]> {
  const text = await readFile(path, 'utf8')
  return text
    .trim()
    .split('\n')
    .map((line): RawRecord => JSON.parse(line))
}

async function signaturesOf(file: string, by: SigningKey = key): Promise<SignatureReport> {
  const keys = parseApproverKeys(JSON.parse(jwksDocument([by])))
  const check = checkSignatures(new Map(keys.map((one) => [one.kid, one])))
  const chain = await readVerified(createReadStream(file), {
    restarts: true,
    use: ({ place, record }) =>
      check.add({ ...place, ...(record?.type === 'checkpoint' && { checkpoint: record }) }),
  })
  expect(chain.bad).toBeUndefined()
  return check.report()
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
