/**
 * The bare passthrough: our own forwarder and its rules for header fields, without identity, grant, policy, credential
 * and audit. What the sidecar adds is measured against it. Argument: the port of the upstream.
 */
import { createServer } from 'node:http'
import type { Exchange } from '../proxy/exchange.ts'
import { forward } from '../proxy/forward.ts'
import { inboundResponseHeaders, outboundHeaders } from '../proxy/headers.ts'
import { createUpstreamClient } from '../proxy/upstream-client.ts'

const host = `127.0.0.1:${process.argv[2]}`
const client = createUpstreamClient({
  config: {
    name: 'bare',
    url: `http://${host}`,
    kind: 'rest',
    protocol: 'http1',
    sensitivity: 'internal',
    credential: { none: true },
    allowPrivateAddresses: true,
    unsafeAllowSetCookie: false,
    connectTimeout: 5_000,
    headersTimeout: 300_000,
    maxConnections: 1024,
  },
  ca: undefined,
})

const server = createServer({ noDelay: true, keepAliveTimeout: 65_000 }, (req, res) => {
  void forward(req, res, {
    client,
    method: req.method ?? '',
    target: req.url ?? '',
    headers: outboundHeaders(req.rawHeaders, {
      host,
      slots: [],
      injected: [],
      stripAcceptEncoding: false,
    }),
    body: 'none',
    exchange: new UntrackedExchange(),
    requestTrailers: () => [],
    responseHeaders: (raw) => inboundResponseHeaders(raw, { allowSetCookie: false }),
    filter: undefined,
    hasCredential: false,
    refusePending: () => res.socket?.resetAndDestroy(),
    bodyGapTimeoutMs: 60_000,
  })
})

/** Nobody cuts it. */
class UntrackedExchange implements Exchange {
  readonly cut = undefined
  readonly cutHow = undefined
  readonly cutAfterMs = undefined
  readonly lastUpMs = undefined
  readonly lastDownMs = undefined
  bytesUp = 0
  bytesDown = 0
  restsOn(): void {}
  attach(): void {}
  [Symbol.dispose](): void {}
}

server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') process.send?.({ port: address.port })
})
process.on('disconnect', () => process.exit(0))
