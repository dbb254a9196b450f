import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { deny } from '../../policy/denial.ts'
import { denialCodes, type Denial } from '../../policy/types.ts'
import {
  denialHeaders,
  denialOfCut,
  denialStatus,
  denialText,
  refuse,
  type RefusalContext,
} from '../../proxy/denial.ts'
import { record } from '../kit/decide-input.ts'

/** What SDKs retry by themselves: no refusal may have one of these, but for those that pass. */
const retried = [408, 409, 425, 429, 500, 502, 503, 504]
const passing = ['task-paused', 'control-plane-stale']

let server: Server | undefined
afterEach(() => {
  server?.closeAllConnections()
  server?.close()
})

describe('refuse()', () => {
  test.each(denialCodes)('gives %s as one JSON body that every client can read', async (code) => {
    const { status, headers, body } = await answered(deny(code, 'internal detail'))
    expect(status).toBe(denialStatus(code))
    expect(body).toEqual({
      type: `urn:chaperone:denial:${code}`,
      title: code,
      status,
      detail: denialText({ code }),
      code,
      decision_id: 'd1',
      retryable: passing.includes(code),
      txn: 'task-1',
      message: denialText({ code }),
      error: { code, type: 'permission_error', message: denialText({ code }) },
    })
    expect(JSON.stringify(body)).not.toContain('internal detail')
    expect(headers.get('content-type')).toBe('application/json')
    expect(headers.get('x-should-retry')).toBe('false')
    expect(headers.get('cache-control')).toBe('no-store')
    expect(headers.get('chaperone-denial')).toBe(code)
    expect(headers.get('chaperone-decision')).toBe('d1')
    expect(headers.has('retry-after')).toBe(passing.includes(code))
  })

  test('tells when the revocation was recorded, and nothing else of it', async () => {
    const revocation = record({ subject: 'task:task-1', reason: 'inner', by: 'someone' })
    const { body } = await answered(deny('task-terminated', 'd', { revocation }))
    expect(body).toMatchObject({ effective_at: '2026-01-01T00:00:00.000Z' })
    expect(JSON.stringify(body)).not.toMatch(/inner|someone|r1/)
  })

  test('answers in problem+json when asked, and closes when told', async () => {
    const context = { accept: 'text/html, application/problem+json', close: true }
    const { headers } = await answered(deny('policy-denied', 'd'), context)
    expect(headers.get('content-type')).toBe('application/problem+json')
    expect(headers.get('connection')).toBe('close')
  })
})

describe('denialStatus()', () => {
  test.each(denialCodes)('asks for an identity with 401 for identity codes alone: %s', (code) => {
    expect(denialStatus(code) === 401).toBe(code.startsWith('identity-'))
  })

  test('is one that SDKs retry for no decision that stands', () => {
    const standing = denialCodes.filter(
      (code) => !passing.includes(code) && !code.startsWith('upstream-') && code !== 'task-limit',
    )
    expect(standing.filter((code) => retried.includes(denialStatus(code)))).toEqual([])
  })
})

describe('denialHeaders()', () => {
  test('challenges for the identity alone', () => {
    const challenged = denialCodes.filter((code) =>
      denialHeaders(code, 'd').includes('www-authenticate'),
    )
    expect(challenged).toEqual(['identity-required', 'identity-invalid'])
  })
})

describe('denialText()', () => {
  test.each(denialCodes)('is for a model, short and in full sentences: %s', (code) => {
    expect(denialText({ code })).toMatch(/^[A-Z].{20,380}\.$/)
  })

  test('keeps the reason of a policy within 400 characters', () => {
    const text = denialText({ code: 'policy-denied', reason: 'x'.repeat(1_000) })
    expect(text).toHaveLength(400)
    expect(text).toContain('Reason: xxx')
  })
})

describe('denialOfCut()', () => {
  test('keeps the code and the record of the cut', () => {
    const revocation = record({})
    expect(denialOfCut({ code: 'task-terminated', revocation, atMonotonicMs: 1 })).toEqual(
      deny('task-terminated', 'cut while in flight', { revocation }),
    )
    expect(denialOfCut({ code: 'task-expired', atMonotonicMs: 1 })).not.toHaveProperty('revocation')
  })
})

async function answered(denial: Denial, more: Partial<RefusalContext> = {}) {
  server = createServer((_, res) =>
    refuse(res, denial, { decisionId: 'd1', txn: 'task-1', ...more }),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const response = await fetch(`http://127.0.0.1:${port}`)
  const body: unknown = await response.json()
  return { status: response.status, headers: response.headers, body }
}
