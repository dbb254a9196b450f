import type { ServerResponse } from 'node:http'
import type { JWK } from 'jose'
import { listenOn } from './listen-on.ts'
import type { Metrics } from './metrics.ts'
import { http } from './node-http.ts'

/** One line of `?verbose`. */
export interface CheckResult {
  readonly name: string
  readonly ok: boolean
  /** For a person; no secret, no path of a secret. */
  readonly detail: string
}

export interface AdminOptions {
  /** host:port */
  readonly address: string
  live(): readonly CheckResult[]
  ready(): readonly CheckResult[]
  started(): readonly CheckResult[]
  readonly metrics: Metrics
  jwks(): { readonly keys: readonly JWK[] }
}

export interface AdminListener extends AsyncDisposable {
  readonly url: string
}

/**
 * Probes, metrics and the public keys of minted credentials. A listener of its own, so that the agent's port has none of
 * it, and so that a full agent listener never fails a probe.
 */
export async function startAdminListener(options: AdminOptions): Promise<AdminListener> {
  const server = http.createServer({ headersTimeout: 5_000, maxHeaderSize: 8_192 }, (req, res) => {
    req.resume()
    const [path = '', query = ''] = (req.url ?? '').split('?', 2)
    if (req.method !== 'GET' && req.method !== 'HEAD') return send(res, 405, 'Expected GET\n')
    answer(res, { path, verbose: query.split('&').includes('verbose'), options }).catch(() => {
      if (!res.headersSent) send(res, 500, 'error\n')
    })
  })
  server.maxConnections = 64
  const url = await listenOn(server, options.address)
  return {
    url,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

interface Question {
  readonly path: string
  readonly verbose: boolean
  readonly options: AdminOptions
}

async function answer(res: ServerResponse, { path, verbose, options }: Question): Promise<void> {
  switch (path) {
    case '/livez':
      return sendChecks(res, options.live(), verbose)
    case '/readyz':
      return sendChecks(res, options.ready(), verbose)
    case '/startupz':
      return sendChecks(res, options.started(), verbose)
    case '/metrics': {
      const { contentType, text } = await options.metrics.expose()
      return send(res, 200, text, { 'content-type': contentType })
    }
    case '/.well-known/jwks.json':
      return send(res, 200, JSON.stringify(options.jwks()), {
        'content-type': 'application/jwk-set+json',
        'cache-control': 'public, max-age=300',
      })
    default:
      return send(
        res,
        404,
        'Expected /livez, /readyz, /startupz, /metrics or /.well-known/jwks.json\n',
      )
  }
}

/** The form of the Kubernetes probes: one line per check when asked, else one word. */
function sendChecks(res: ServerResponse, checks: readonly CheckResult[], verbose: boolean): void {
  const ok = checks.every((check) => check.ok)
  const lines = checks.map((check) => `[${check.ok ? '+' : '-'}] ${check.name}: ${check.detail}`)
  const failed = checks.filter((check) => !check.ok).map((check) => check.name)
  const summary = ok ? 'ok' : `not ok: ${failed.join(', ')}`
  send(res, ok ? 200 : 503, `${verbose ? [...lines, summary].join('\n') : summary}\n`)
}

function send(
  res: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = { 'content-type': 'text/plain; charset=utf-8' },
): void {
  res.writeHead(status, { 'cache-control': 'no-store', ...headers }).end(text)
}
