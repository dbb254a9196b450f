import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startAdminListener, type AdminListener, type CheckResult } from '../../proxy/admin.ts'
import { createMetrics } from '../../proxy/metrics.ts'

const metrics = createMetrics()
let checks: readonly CheckResult[] = []
let jwks = (): { readonly keys: readonly object[] } => ({ keys: [{ kty: 'EC', kid: 'k' }] })
let admin: AdminListener

beforeEach(async () => {
  checks = [{ name: 'process', ok: true, detail: 'version 1' }]
  jwks = () => ({ keys: [{ kty: 'EC', kid: 'k' }] })
  admin = await startAdminListener({
    address: '127.0.0.1:0',
    live: () => [{ name: 'process', ok: true, detail: 'version 1' }],
    ready: () => checks,
    started: () => checks,
    metrics,
    jwks: () => ({ keys: jwks().keys.map((key) => ({ ...key, kty: 'EC' })) }),
  })
})
afterEach(() => admin[Symbol.asyncDispose]())

describe('startAdminListener()', () => {
  test('answers the probes in one word, and line by line when asked', async () => {
    expect(await get('/readyz')).toMatchObject({ status: 200, text: 'ok\n' })
    expect((await get('/readyz?verbose')).text).toBe('[+] process: version 1\nok\n')
  })

  test.each(['/readyz', '/startupz'])('says which check of %s fails, with 503', async (path) => {
    checks = [...checks, { name: 'audit', ok: false, detail: '3 waiting' }]
    expect(await get(path)).toMatchObject({ status: 503, text: 'not ok: audit\n' })
    expect((await get(`${path}?verbose=1&verbose`)).text).toContain('[-] audit: 3 waiting')
    expect((await get('/livez')).status).toBe(200)
  })

  test('serves metrics and keys with their types', async () => {
    const { text, headers } = await get('/metrics')
    expect(headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
    expect(text).toContain('chaperone_build_info')
    const keys = await get('/.well-known/jwks.json')
    expect(keys.headers.get('content-type')).toBe('application/jwk-set+json')
    expect(keys.headers.get('cache-control')).toBe('public, max-age=300')
    expect(JSON.parse(keys.text)).toEqual({ keys: [{ kty: 'EC', kid: 'k' }] })
  })

  test('answers 500, and says nothing of why, when the keys cannot be read', async () => {
    jwks = () => {
      throw new Error('secret path')
    }
    expect(await get('/.well-known/jwks.json')).toMatchObject({ status: 500, text: 'error\n' })
    expect((await get('/livez')).status).toBe(200)
  })

  test.each(['/', '/readyz/', '/heapdump', '/api', '//livez'])('has no %s', async (path) => {
    expect((await get(path)).status).toBe(404)
  })

  test('takes GET and HEAD only, and reads no body', async () => {
    expect((await get('/livez', { method: 'POST', body: 'x'.repeat(100_000) })).status).toBe(405)
    expect(await get('/livez', { method: 'HEAD' })).toMatchObject({ status: 200, text: '' })
  })

  test('rejects when the address is taken', async () => {
    const { host } = new URL(admin.url)
    const second = startAdminListener({
      address: host,
      live: () => [],
      ready: () => [],
      started: () => [],
      metrics,
      jwks: () => ({ keys: [] }),
    })
    await expect(second).rejects.toMatchObject({
      code: 'ERR_LISTEN',
      message: `Cannot listen on ${host}: EADDRINUSE`,
    })
  })
})

async function get(path: string, init: RequestInit = {}) {
  const response = await fetch(`${admin.url}${path}`, init)
  return { status: response.status, headers: response.headers, text: await response.text() }
}
